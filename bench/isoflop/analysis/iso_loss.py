"""The smallest model of a method that is as good as dense's best at equal training FLOPs, and what it saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.formats import percent
from bench.isoflop.analysis.curves import DRAWS, curves, estimate
from bench.isoflop.analysis.documents import between_best
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.wall_clock import seconds_per_token
from bench.stats.parabolas import Estimate


@dataclass(frozen=True)
class Parity:
    """The smallest model of a method that reaches dense's optimal loss at the same training FLOPs.

    Ratios over dense's optimum; None where none can be given, and `why` says so where it is about that loss. What they
    owe to which documents were held out is in the intervals of the first two: they rest on a difference of losses.
    """

    method: str
    budget: float
    forward_flops: Estimate | None
    step_time: Estimate | None
    optimum_flops: Estimate | None  # forward FLOPs of the method's own optimum over dense's
    why: str = ""


_NO_REFERENCE = "dense has no optimum inside the sizes that were run"


def parities(results: Results) -> list[Parity]:
    """Every method and budget."""
    own = curves(results, "forward_flops")
    rng = np.random.default_rng(2)  # of documents; that of the curves is another
    found = []
    for budget in results.budgets:
        dense = own.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            others = (method for method in results.methods if method != REFERENCE)
            found += [Parity(method, budget, None, None, None, _NO_REFERENCE) for method in others]
            continue
        (size, loss), anywhere = dense.optimum, dense.unbounded_optimum
        for method in results.methods:
            curve = own.get((method, budget))
            if method == REFERENCE:
                continue
            if curve is None or curve.status == "poor fit":
                why = curve.fault if curve else "too few sizes were run"
                found.append(Parity(method, budget, None, None, None, why))
                continue
            n = min(len(size), 1 + len(curve.draws))
            cut = curve.first(n)
            errors = between_best(results, method, REFERENCE, budget).errors(1 + DRAWS, rng)
            least = cut.smallest_reaching(loss[:n] - errors[:n])
            dense_time = _open(seconds_per_token(results, REFERENCE, size[:n]), anywhere[:n])
            with np.errstate(invalid="ignore", divide="ignore"):
                time = _open(seconds_per_token(results, method, least), least) / dense_time
            found.append(
                Parity(
                    method, budget, _over(least, anywhere[:n]), _ratio(time),
                    _over(cut.unbounded_optimum, anywhere[:n]) if curve.inside else None, _why_not(least),
                )
            )  # fmt: skip
    return found


def _why_not(log_size: np.ndarray) -> str:
    """Of the smallest log size that reaches dense's loss (1 + R,): why the fitted one is no number; or empty."""
    drawn = log_size[1:]
    for end, where in ((math.inf, "no size"), (-math.inf, "the smallest size")):
        if log_size[0] == end:
            share = f", and so do {percent(float(np.mean(drawn == end)), 0)} of those drawn" if len(drawn) else ""
            return f"the fitted curve reaches it at {where} that was run{share}"
    return ""


def _over(log_size: np.ndarray, reference: np.ndarray) -> Estimate | None:
    """The ratio, which may be anything where both are beyond what was run on the same side."""
    with np.errstate(invalid="ignore"):
        return _ratio(np.exp(log_size - reference))


def _open(seconds: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    """Seconds of sizes that may be anywhere beyond those that were run: anything, too."""
    return np.where(np.isposinf(log_size), np.inf, np.where(np.isneginf(log_size), 0.0, seconds))


def _ratio(values: np.ndarray) -> Estimate | None:
    return estimate(values) if np.isfinite(values[0]) and values[0] > 0 else None
