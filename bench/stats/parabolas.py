"""Approach 2 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.2): a parabola per budget, a power law of the minima.

Loss is a parabola in log params at each budget. A minimum counts if the parabola opens upwards, and its minimum lies
between the smallest and the largest size and not below the loss of every size by more than noise. The others are kept,
with the reason. A run far off the parabola through the others is excluded and named. Minima over budgets follow params
= coefficient x flops^exponent.

Intervals: residual bootstrap, the residuals of all budgets of a method taken together, relative to the loss and
corrected for leverage. A drawn optimum is the lowest point between the smallest and the largest size; at an end, the
optimum may be anywhere beyond, and the interval is open. A power law uses the minima of the drawn parabolas themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bench.stats.budget import Budget, Noise, noise, residuals
from bench.stats.interval import Interval
from bench.stats.outliers import Outlier, without_outliers


@dataclass(frozen=True)
class Optimum:
    """The best size at one budget. `status`: ok, or why its minimum does not count.

    points: the runs its parabola goes through; outliers: those excluded from it. near_edge: it counts, but lies at
    most one size from an end of the grid, so one side of it is hardly known.
    """

    flops: float
    status: str  # ok | concave | edge | poor fit | too few sizes
    points: int
    near_edge: bool = False
    params: Interval | None = None
    tokens: Interval | None = None
    loss: Interval | None = None
    curve: tuple[float, float, float] | None = None  # c0 + c1 z + c2 z^2, z = log(params / centre)
    centre: float = 1.0
    outliers: tuple[Outlier, ...] = ()


@dataclass(frozen=True)
class MethodFit:
    """A method's optima and their power laws; None if fewer than two budgets have an optimum.

    `log_flops` and `log_loss_draws` (R, budgets) are of the accepted optima, the drawn ones for comparisons.
    """

    optima: list[Optimum]
    params_exponent: Interval | None
    params_coefficient: Interval | None
    tokens_exponent: Interval | None
    tokens_coefficient: Interval | None
    log_flops: np.ndarray
    loss: np.ndarray
    loss_draws: np.ndarray


def fit_method(points: pd.DataFrame, bootstraps: int, rng: np.random.Generator) -> MethodFit:
    """Approach 2 on the points of one method: columns budget, params, tokens, loss."""
    budgets, wrong = [], {}
    for flops, own in points.groupby("budget"):
        params, tokens, loss = (own[name].to_numpy(dtype=float) for name in ("params", "tokens", "loss"))
        budget, outliers = without_outliers(Budget(float(flops), np.log(params), np.log(tokens), loss))
        budgets.append(budget)
        wrong[budget.flops] = tuple(outliers)
    fitted = [budget for budget in budgets if len(np.unique(budget.log_params)) >= 3]
    left, spread = residuals(fitted), noise(fitted)
    optima, kept = [], []
    for budget in budgets:
        if len(np.unique(budget.log_params)) < 3:
            optima.append(Optimum(budget.flops, "too few sizes", len(budget.loss)))
            continue
        optimum, draws = _optimum(budget, left, spread, bootstraps, rng)
        optima.append(replace(optimum, outliers=wrong[budget.flops]))
        if optimum.status == "ok":
            kept.append((budget.flops, optimum, draws))
    log_flops = np.log([flops for flops, _, _ in kept])
    values = {name: np.array([_log_of(optimum, name) for _, optimum, _ in kept]) for name in ("params", "tokens")}
    draws = {
        name: np.stack([own[name] for *_, own in kept], axis=1) if kept else np.empty((0, 0))
        for name in ("params", "tokens", "loss")
    }
    of_params, of_tokens = (_power_law(log_flops, values[name], draws[name]) for name in ("params", "tokens"))
    loss = np.array([optimum.loss.value for _, optimum, _ in kept if optimum.loss])
    return MethodFit(optima, *of_params, *of_tokens, log_flops, loss, draws["loss"])


def _log_of(optimum: Optimum, name: str) -> float:
    estimate = getattr(optimum, name)
    return float(np.log(estimate.value))


def _optimum(
    budget: Budget, left: np.ndarray, spread: Noise, bootstraps: int, rng: np.random.Generator
) -> tuple[Optimum, dict[str, np.ndarray]]:
    coefficients = budget.coefficients(budget.loss)
    log_params, loss = budget.minima(coefficients)
    shared: dict[str, Any] = {
        "points": len(budget.loss),
        "curve": tuple(coefficients.tolist()),
        "centre": float(np.exp(budget.centre)),
    }
    fault = budget.fault(coefficients, spread)
    if fault == "concave":
        return Optimum(budget.flops, fault, **shared), {}
    drawn = budget.drawn(left, bootstraps, rng) if len(left) and bootstraps else np.empty((0, 3))
    minima, _ = budget.minima(drawn)
    size, lowest = budget.lowest(drawn)
    size = budget.open_at_ends(size)
    optimum = Optimum(
        budget.flops,
        fault or "ok",
        near_edge=not fault and budget.near_edge(float(log_params)),
        params=_open(log_params, size),
        tokens=_open(budget.tokens_at(log_params), budget.tokens_at(size)),
        loss=Interval.from_draws(float(loss), lowest),
        **shared,
    )
    return optimum, {"params": minima, "tokens": budget.tokens_at(minima), "loss": lowest}


def _open(log_value: np.ndarray, log_draws: np.ndarray) -> Interval:
    """Of a value, by its log; minus infinity among the draws is kept, because it means anything below."""
    with np.errstate(over="ignore"):
        draws = np.where(np.isneginf(log_draws), -np.inf, np.exp(log_draws))
        return Interval.from_draws(float(np.exp(log_value)), draws)


def _exp(values: np.ndarray | None) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        return None if values is None else np.exp(values)


def _power_law(
    log_flops: np.ndarray, log_values: np.ndarray, draws: np.ndarray
) -> tuple[Interval | None, Interval | None]:
    """Exponent and coefficient of value = coefficient x flops^exponent, by least squares in logs."""
    if len(log_flops) < 2:
        return None, None
    design = np.stack([log_flops - log_flops.mean(), np.ones_like(log_flops)], axis=1)
    inverse = np.linalg.pinv(design)

    def line(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, level = np.moveaxis(values @ inverse.T, -1, 0)
        return slope, level - slope * log_flops.mean()

    slope, level = line(log_values)
    drawn = line(draws) if draws.size else (None, None)
    return Interval.from_draws(float(slope), drawn[0]), Interval.from_draws(float(np.exp(level)), _exp(drawn[1]))
