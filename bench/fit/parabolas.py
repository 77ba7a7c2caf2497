"""Approach 2 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.2): a parabola a budget, a power law of the minima.

Loss is a parabola in log params at each budget. A minimum counts where the parabola opens upwards, its minimum
lies between the smallest and the largest size, and is not below what any size reached by more than noise; the
others are kept, with the reason. Minima over budgets follow params = coefficient x flops^exponent. Intervals:
residual bootstrap, the residuals of all budgets of a method taken together, relative to the loss and corrected for
leverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

COVERAGE = 0.95
OPEN_INTERVAL = "(interval open)"  # resamples were drawn, and too many of them had no such value
# A minimum may be below the best size's mean loss by the noise of that mean, one-sided 95 %; in shares of the loss not
# held to less than the first, for no loss is quite a parabola, nor allowed more than the second.
_LEAST_BELOW, _MOST_BELOW = 0.001, 0.02


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None where there is nothing to estimate it from."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, draws: np.ndarray | None) -> Estimate:
        """`draws`: bootstrap estimates; NaNs count as beyond both ends, so that many of them leave no interval."""
        if draws is None or not len(draws):
            return cls(float(value))
        tail = 100 * (1 - COVERAGE) / 2
        low = np.percentile(np.where(np.isnan(draws), -np.inf, draws), tail, method="higher")
        high = np.percentile(np.where(np.isnan(draws), np.inf, draws), 100 - tail, method="lower")
        if np.isnan(draws).any() and not (np.isfinite(low) and np.isfinite(high)):
            return cls(float(value))
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Optimum:
    """The best size at one budget. `status`: ok, or why its minimum does not count.

    near_edge: it counts, but lies no farther than one size from an end, so that one side of it is hardly known.
    """

    flops: float
    status: str  # ok | concave | edge | poor fit | too few sizes
    points: int
    near_edge: bool = False
    params: Estimate | None = None
    tokens: Estimate | None = None
    loss: Estimate | None = None
    curve: tuple[float, float, float] | None = None  # c0 + c1 z + c2 z^2, z = log(params / centre)
    centre: float = 1.0


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run's loss, relative to the loss, and its degrees of freedom; 0: nothing is known."""

    sd: float
    degrees: int

    def allowed(self, runs: int) -> float:
        """By how much, relative to the loss, a fitted minimum may be below the mean of `runs` runs of the best size."""
        if not self.degrees:
            return _MOST_BELOW
        wide = float(stats.t.ppf(0.95, self.degrees)) * self.sd / np.sqrt(runs)
        return float(np.clip(wide, _LEAST_BELOW, _MOST_BELOW))


@dataclass(frozen=True)
class Budget:
    """One budget's points and the linear algebra of its parabola."""

    flops: float
    log_params: np.ndarray
    log_tokens: np.ndarray
    loss: np.ndarray

    @property
    def centre(self) -> float:
        return float(self.log_params.mean())

    @property
    def design(self) -> np.ndarray:
        z = self.log_params - self.centre
        return np.stack([np.ones_like(z), z, z * z], axis=1)

    def coefficients(self, losses: np.ndarray) -> np.ndarray:
        """losses (..., n) -> (..., 3)."""
        return losses @ np.linalg.pinv(self.design).T

    def drawn(self, left: np.ndarray, bootstraps: int, rng: np.random.Generator) -> np.ndarray:
        """Coefficients (R, 3) of parabolas through the fitted losses with relative residuals drawn from `left`."""
        fit = self.design @ self.coefficients(self.loss)
        return self.coefficients(fit * (1 + rng.choice(left, (bootstraps, len(fit)))))

    def minima(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) -> log params and loss at the minimum (...,), NaN where the parabola opens downwards."""
        c0, c1, c2 = np.moveaxis(coefficients, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(c2 > 0, -c1 / (2 * c2), np.nan)
        return z + self.centre, c0 + c1 * z + c2 * z * z

    def fault(self, coefficients: np.ndarray, noise: Noise) -> str:
        """Why the minimum of the fitted parabola (3,) does not count: a status of `Optimum`; empty where it does."""
        if coefficients[2] <= 0:
            return "concave"
        at, _ = self.minima(coefficients)
        if not self.log_params.min() < at < self.log_params.max():
            return "edge"
        sizes, means, runs = self.by_size
        best = int(means.argmin())
        nearest = sizes[np.abs(sizes - at).argmin()] - self.centre
        there = np.polynomial.polynomial.polyval(nearest, coefficients)  # the lowest that the sizes could show
        return "poor fit" if there < means[best] * (1 - noise.allowed(int(runs[best]))) else ""

    def near_edge(self, log_params: float) -> bool:
        """Whether it is no farther from the first or the last size that was run than the size next to that."""
        sizes = self.by_size[0]
        return not sizes[1] < log_params < sizes[-2]

    @property
    def by_size(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log sizes (S,), the mean loss of each, and how many runs it had."""
        sizes, place, runs = np.unique(self.log_params, return_inverse=True, return_counts=True)
        return sizes, np.bincount(place, self.loss) / runs, runs

    def tokens_at(self, log_params: np.ndarray) -> np.ndarray:
        """log tokens, on the straight line through the points; exact where flops = 6 params tokens."""
        slope, level = np.polyfit(self.log_params - self.centre, self.log_tokens, 1)
        return level + slope * (log_params - self.centre)


@dataclass(frozen=True)
class MethodFit:
    """A method's optima and their power laws; None where fewer than two budgets have an optimum.

    `log_flops` and `log_loss_draws` (R, budgets) are of the accepted optima, the drawn ones for comparisons.
    """

    optima: list[Optimum]
    params_exponent: Estimate | None
    params_coefficient: Estimate | None
    tokens_exponent: Estimate | None
    tokens_coefficient: Estimate | None
    log_flops: np.ndarray
    loss: np.ndarray
    loss_draws: np.ndarray


def fit_method(points: pd.DataFrame, bootstraps: int, rng: np.random.Generator) -> MethodFit:
    """Approach 2 on the points of one method: columns budget, params, tokens, loss."""
    budgets = []
    for flops, own in points.groupby("budget"):
        params, tokens, loss = (own[name].to_numpy(dtype=float) for name in ("params", "tokens", "loss"))
        budgets.append(Budget(float(flops), np.log(params), np.log(tokens), loss))
    fitted = [budget for budget in budgets if len(np.unique(budget.log_params)) >= 3]
    left, spread = residuals(fitted), noise(fitted)
    optima, kept = [], []
    for budget in budgets:
        if len(np.unique(budget.log_params)) < 3:
            optima.append(Optimum(budget.flops, "too few sizes", len(budget.loss)))
            continue
        optimum, draws = _optimum(budget, left, spread, bootstraps, rng)
        optima.append(optimum)
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


def residuals(budgets: list[Budget]) -> np.ndarray:
    """Relative residuals of all parabolas, each over sqrt(1 - leverage); those of exact fits say nothing."""
    found = []
    for budget in budgets:
        design = budget.design
        leverage = np.clip(np.einsum("ij,ji->i", design, np.linalg.pinv(design)), 0, 1)
        if len(budget.loss) > 3:
            fit = design @ budget.coefficients(budget.loss)
            free = leverage < 1 - 1e-9
            found.append(((budget.loss - fit) / fit)[free] / np.sqrt(1 - leverage[free]))
    pooled = np.concatenate(found) if found else np.empty(0)
    return pooled - pooled.mean() if len(pooled) else pooled


def noise(budgets: list[Budget]) -> Noise:
    """Of one run, by the runs that repeat a size of their budget; where none do, by the residuals of the parabolas."""
    squares, degrees = 0.0, 0
    for budget in budgets:
        sizes, means, runs = budget.by_size
        own = means[np.searchsorted(sizes, budget.log_params)]
        squares += float(np.sum((budget.loss / own - 1) ** 2))
        degrees += int(np.sum(runs - 1))
    if degrees:
        return Noise(float(np.sqrt(squares / degrees)), degrees)
    left = residuals(budgets)
    return Noise(float(left.std()) if len(left) else 0.0, max(0, sum(len(b.loss) - 3 for b in budgets)))


def _optimum(
    budget: Budget, left: np.ndarray, spread: Noise, bootstraps: int, rng: np.random.Generator
) -> tuple[Optimum, dict[str, np.ndarray]]:
    coefficients = budget.coefficients(budget.loss)
    log_params, loss = (float(value) for value in budget.minima(coefficients))
    shared: dict[str, Any] = {
        "points": len(budget.loss),
        "curve": tuple(coefficients.tolist()),
        "centre": float(np.exp(budget.centre)),
    }
    fault = budget.fault(coefficients, spread)
    if fault == "concave":
        return Optimum(budget.flops, fault, **shared), {}
    draws: dict[str, np.ndarray] = {}
    if len(left) and bootstraps:
        at, lowest = budget.minima(budget.drawn(left, bootstraps, rng))
        draws = {"params": at, "tokens": budget.tokens_at(at), "loss": lowest}
    optimum = Optimum(
        budget.flops,
        fault or "ok",
        near_edge=not fault and budget.near_edge(log_params),
        params=Estimate.of(np.exp(log_params), _exp(draws.get("params"))),
        tokens=Estimate.of(np.exp(budget.tokens_at(np.array(log_params))), _exp(draws.get("tokens"))),
        loss=Estimate.of(loss, draws.get("loss")),
        **shared,
    )
    empty = np.empty(0)
    return optimum, {name: draws.get(name, empty) for name in ("params", "tokens", "loss")}


def _exp(values: np.ndarray | None) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        return None if values is None else np.exp(values)


def _power_law(
    log_flops: np.ndarray, log_values: np.ndarray, draws: np.ndarray
) -> tuple[Estimate | None, Estimate | None]:
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
    return Estimate.of(float(slope), drawn[0]), Estimate.of(float(np.exp(level)), _exp(drawn[1]))
