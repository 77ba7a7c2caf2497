"""Iso-loss: the smallest model of a method with dense's best loss at equal training FLOPs, and what it saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.formats import percent
from bench.isoflop.analysis.contracts import NO_DENSE
from bench.isoflop.analysis.curves import DRAWS, curves, with_draws
from bench.isoflop.analysis.differences import document_noise, drawn
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.wall_clock import seconds_per_token
from bench.stats.interval import Interval


@dataclass(frozen=True)
class IsoLoss:
    """The smallest model of a method that reaches dense's optimal loss at the same training FLOPs.

    Ratios over dense's optimum; None if there is none; `why` gives the reason if it concerns that loss. The
    intervals of the first two cover validation documents, because they rest on a difference of losses.
    """

    method: str
    budget: float
    forward_flops: Interval | None
    step_time: Interval | None
    optimum_flops: Interval | None  # forward FLOPs of the method's own optimum over dense's
    why: str = ""


def iso_losses(results: Results) -> list[IsoLoss]:
    """Every method and budget."""
    own = curves(results, "forward_flops")
    rng = np.random.default_rng(2)  # of documents; that of the curves is another
    found = []
    for budget in results.budgets:
        dense = own.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            others = (method for method in results.methods if method != REFERENCE)
            found += [IsoLoss(method, budget, None, None, None, NO_DENSE) for method in others]
            continue
        (size, loss), anywhere = dense.optimum, dense.unbounded_optimum
        for method in results.methods:
            curve = own.get((method, budget))
            if method == REFERENCE:
                continue
            if curve is None or curve.status == "poor fit":
                why = curve.fault if curve else "too few sizes"
                found.append(IsoLoss(method, budget, None, None, None, why))
                continue
            n = min(len(size), 1 + len(curve.draws))
            cut = curve.first(n)
            errors = drawn(document_noise(results, method, REFERENCE, budget), 1 + DRAWS, rng)
            least = cut.smallest_reaching(loss[:n] - errors[:n])
            dense_time = _open(seconds_per_token(results, REFERENCE, size[:n]), anywhere[:n])
            with np.errstate(invalid="ignore", divide="ignore"):
                time = _open(seconds_per_token(results, method, least), least) / dense_time
            found.append(
                IsoLoss(
                    method, budget, _over(least, anywhere[:n]), _ratio(time),
                    _over(cut.unbounded_optimum, anywhere[:n]) if curve.inside else None, _why_not(least),
                )
            )  # fmt: skip
    return found


def _why_not(log_size: np.ndarray) -> str:
    """Why the smallest log size that reaches dense's loss (1 + R,) is not a number for the fitted curve; or empty."""
    drawn = log_size[1:]
    for end, where in ((math.inf, "no size"), (-math.inf, "the smallest size")):
        if log_size[0] == end:
            share = f" ({percent(float(np.mean(drawn == end)), 0)} of resamples)" if len(drawn) else ""
            return f"at {where}{share}"
    return ""


def _over(log_size: np.ndarray, reference: np.ndarray) -> Interval | None:
    """The ratio, which is unknown where both are beyond the grid on the same side."""
    with np.errstate(invalid="ignore"):
        return _ratio(np.exp(log_size - reference))


def _open(seconds: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    """Seconds of sizes, open where the size is beyond the grid."""
    return np.where(np.isposinf(log_size), np.inf, np.where(np.isneginf(log_size), 0.0, seconds))


def _ratio(values: np.ndarray) -> Interval | None:
    return with_draws(values) if np.isfinite(values[0]) and values[0] > 0 else None
