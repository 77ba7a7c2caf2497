"""Approach 2 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.2): a parabola per budget, a power law of the minima.

Loss is a parabola in log params at each budget. A minimum counts if the parabola opens upwards, and its minimum lies
between the smallest and the largest size and not below the loss of every size by more than noise. The others are kept,
with the reason. A run far off the parabola through the others is excluded and named. Minima over budgets follow params
= coefficient x flops^exponent.

Intervals: standard errors by the delta method, from the scatter of all of a method's runs about their parabolas,
relative to the loss, and from the shift of the minimum where the residuals show a cubic term; Student's t with the
degrees of freedom of that scatter. An end beyond the sizes that were run is open, and both are where the parabola may
be flat (Fieller 1954, J. R. Stat. Soc. B 16). The power law weighs every minimum by its precision. It also uses a
minimum outside the sizes if that may be noise, because leaving it out would select. Its interval is open if the budgets
taken together may be flat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bench.stats.budget import Budget, Noise, noise, scatter
from bench.stats.interval import Interval
from bench.stats.misfit import Misfit, misfit
from bench.stats.outliers import Outlier, without_outliers
from bench.stats.power_laws import PowerLaw, power_law, t_draws, t_quantile


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
    """A method's optima and their power laws; None if fewer than two budgets have a minimum.

    `log_flops`, `loss` and `loss_draws` (R, budgets) are of the accepted optima, the drawn ones for comparisons.
    unweighted: the law of params with every budget counting alike, its interval from the scatter about the line.
    misfit: whether the losses are parabolas.
    """

    optima: list[Optimum]
    params_law: PowerLaw | None
    tokens_law: PowerLaw | None
    unweighted: PowerLaw | None
    log_flops: np.ndarray
    loss: np.ndarray
    loss_draws: np.ndarray
    misfit: Misfit

    @property
    def params_exponent(self) -> Interval | None:
        return self.params_law.slope if self.params_law else None

    @property
    def params_coefficient(self) -> Interval | None:
        return self.params_law.coefficient if self.params_law else None

    @property
    def tokens_exponent(self) -> Interval | None:
        return self.tokens_law.slope if self.tokens_law else None

    @property
    def tokens_coefficient(self) -> Interval | None:
        return self.tokens_law.coefficient if self.tokens_law else None


@dataclass(frozen=True)
class _Minimum:
    """Of one parabola: logs of flops, params and tokens, and loss.

    stderr: of log_params, 0 if the scatter is unknown. shift: of log_params, what a cubic term would move it by.
    tokens_slope: log tokens by log params. loss_stderr: with the shift of the loss.
    """

    log_flops: float
    log_params: float
    log_tokens: float
    loss: float
    stderr: float
    shift: float
    tokens_slope: float
    loss_stderr: float


def fit_method(points: pd.DataFrame, bootstraps: int, rng: np.random.Generator) -> MethodFit:
    """Approach 2 on the points of one method: columns budget, params, tokens, loss. 0 bootstraps: no intervals."""
    budgets, wrong = [], {}
    flops, params, tokens, loss = points[["budget", "params", "tokens", "loss"]].to_numpy(dtype=float).T
    for each in np.unique(flops):
        own = flops == each
        budget, outliers = without_outliers(Budget(float(each), np.log(params[own]), np.log(tokens[own]), loss[own]))
        budgets.append(budget)
        wrong[budget.flops] = tuple(outliers)
    fitted = [budget for budget in budgets if len(np.unique(budget.log_params)) >= 3]
    spread, bend = noise(fitted), misfit(fitted)
    about = scatter(fitted) if bootstraps else Noise(0.0, 0)
    optima, accepted, of_law = [], [], []
    for budget in budgets:
        if len(np.unique(budget.log_params)) < 3:
            optima.append(Optimum(budget.flops, "too few sizes", len(budget.loss)))
            continue
        optimum, minimum = _optimum(budget, spread, about, bend)
        optima.append(replace(optimum, outliers=wrong[budget.flops]))
        if minimum and optimum.status == "ok":
            accepted.append(minimum)
        if minimum and (optimum.status == "ok" or optimum.status == "edge" and _may_be_inside(budget, minimum, about)):
            of_law.append(minimum)
    laws = [_law(of_law, *name) for name in (("params", about.degrees), ("tokens", about.degrees), ("params", 0))]
    if not bootstraps or about.degrees and _flat(fitted, about):
        laws = [replace(law, degrees=0) if law else None for law in laws]
    params_law, tokens_law, unweighted = laws
    log_flops, losses, errors = (
        np.array([getattr(each, name) for each in accepted]) for name in ("log_flops", "loss", "loss_stderr")
    )
    draws = np.empty((0, 0))
    if about.degrees and accepted:
        draws = losses + errors * t_draws(bootstraps, len(accepted), about.degrees, rng)
    return MethodFit(optima, params_law, tokens_law, unweighted, log_flops, losses, draws, bend)


def _optimum(budget: Budget, spread: Noise, about: Noise, bend: Misfit) -> tuple[Optimum, _Minimum | None]:
    coefficients = budget.coefficients(budget.loss)
    fault = budget.fault(coefficients, spread)
    shared: dict[str, Any] = {
        "points": len(budget.loss),
        "curve": tuple(coefficients.tolist()),
        "centre": float(np.exp(budget.centre)),
    }
    if fault == "concave":
        return Optimum(budget.flops, fault, **shared), None
    at, loss = (float(each) for each in budget.minima(coefficients))
    stderr, by_loss = budget.minimum_stderr(coefficients, about.sd)
    shift, loss_shift = bend.shift(budget, coefficients)
    by_size, by_loss = float(np.hypot(stderr, shift)), float(np.hypot(by_loss, loss_shift))
    away, half = 0.0, None
    if about.degrees:
        half = t_quantile(about.degrees)
        away = half * by_size
    ends = None
    if half:
        unknown = _flat([budget], about)
        ends = np.array([-np.inf, np.inf]) if unknown else budget.open_at_ends(np.array([at - away, at + away]))
    optimum = Optimum(
        budget.flops,
        fault or "ok",
        near_edge=not fault and budget.near_edge(at),
        params=_exp(at, ends),
        tokens=_exp(float(budget.tokens_at(np.array(at))), None if ends is None else budget.tokens_at(ends)),
        loss=Interval(loss, loss - half * by_loss, loss + half * by_loss) if half else Interval(loss),
        **shared,
    )
    here, there = (float(budget.tokens_at(np.array(size))) for size in (at, at + 1.0))
    return optimum, _Minimum(np.log(budget.flops), at, here, loss, stderr, shift, there - here, by_loss)


def _flat(budgets: list[Budget], about: Noise) -> bool:
    """Whether the mean curvature, weighted by precision, is within its 95 % interval of 0."""
    each = [(budget.coefficients(budget.loss)[2] / budget.loss.mean(), budget.covariance[2, 2]) for budget in budgets]
    curvature, variance = np.transpose(each)
    mean_stderr = about.sd / np.sqrt(np.sum(1 / variance))
    return bool(np.average(curvature, weights=1 / variance) <= t_quantile(about.degrees) * mean_stderr)


def _may_be_inside(budget: Budget, minimum: _Minimum, about: Noise) -> bool:
    """Whether a minimum outside the sizes that were run is within its interval of the nearest of them."""
    if not about.degrees:
        return False
    least, most = budget.ends
    beyond = max(least - minimum.log_params, minimum.log_params - most)
    return bool(beyond < t_quantile(about.degrees) * np.hypot(minimum.stderr, minimum.shift))


def _law(minima: list[_Minimum], name: str, degrees: int) -> PowerLaw | None:
    log_flops, values, stderr, shift, slope = (
        np.array([getattr(each, key) for each in minima])
        for key in ("log_flops", f"log_{name}", "stderr", "shift", "tokens_slope")
    )
    each = slope if name == "tokens" else 1.0  # by how much log_values move with log params
    return power_law(log_flops, values, np.abs(each) * stderr, each * shift, degrees)


def _exp(log_value: float, log_ends: np.ndarray | None) -> Interval:
    """Of a value, by its log; an end that is infinite in the log stays so, because it means anything beyond."""
    if log_ends is None:
        return Interval(float(np.exp(log_value)))
    low, high = sorted(float(end) for end in log_ends)
    with np.errstate(over="ignore"):
        return Interval(
            float(np.exp(log_value)), -np.inf if low == -np.inf else float(np.exp(low)), float(np.exp(high))
        )
