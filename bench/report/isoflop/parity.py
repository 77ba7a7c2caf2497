"""The smallest model of a method that is as good as dense's best at equal training FLOPs, and what it saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.fit.parabolas import Estimate
from bench.report.isoflop.curves import DRAWS, curves, estimate
from bench.report.isoflop.documents import between_best
from bench.report.isoflop.results import REFERENCE, Results
from bench.report.isoflop.seconds import seconds_per_token


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


_WHY_NOT = {math.inf: "reaches it at no size that was run", -math.inf: "reaches it at the smallest size that was run"}


def parities(results: Results) -> list[Parity]:
    """Every method and budget for which dense has an optimum."""
    own = curves(results, "forward_flops")
    rng = np.random.default_rng(2)  # of documents; that of the curves is another
    found = []
    for budget in results.budgets:
        dense = own.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            continue
        size, loss = dense.optimum
        for method in results.methods:
            curve = own.get((method, budget))
            if method == REFERENCE or curve is None:
                continue
            if curve.status == "poor fit":
                found.append(Parity(method, budget, None, None, None, curve.fault))
                continue
            n = min(len(size), 1 + len(curve.draws))
            cut = curve.first(n)
            errors = between_best(results, method, REFERENCE, budget).errors(1 + DRAWS, rng)
            least = cut.smallest_reaching(loss[:n] - errors[:n])
            dense_time = seconds_per_token(results, REFERENCE, size[:n])
            time = _open(seconds_per_token(results, method, least), least) / dense_time
            found.append(
                Parity(
                    method, budget, _ratio(np.exp(least - size[:n])), _ratio(time),
                    _ratio(np.exp(cut.unbounded_optimum - size[:n])) if curve.inside else None,
                    _WHY_NOT.get(float(least[0]), ""),
                )
            )  # fmt: skip
    return found


def _open(seconds: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    """Seconds of sizes that may be anywhere beyond those that were run: anything, too."""
    return np.where(np.isposinf(log_size), np.inf, np.where(np.isneginf(log_size), 0.0, seconds))


def _ratio(values: np.ndarray) -> Estimate | None:
    return estimate(values) if np.isfinite(values[0]) and values[0] > 0 else None
