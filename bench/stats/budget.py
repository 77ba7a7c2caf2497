"""One budget's points, their parabola in log params, and how far runs scatter about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

# A minimum may be below the best size's mean loss by the noise of that mean, one-sided 95 %. These limit that
# allowance, as shares of the loss: at least the first, because no loss is exactly a parabola, and at most the second.
LEAST_BELOW, _MOST_BELOW = 0.001, 0.02


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run's loss, relative to the loss, and its degrees of freedom; 0: nothing is known."""

    sd: float
    degrees: int

    def allowed(self, runs: int) -> float:
        """By how much, relative to the loss, a fitted minimum may be below the mean of `runs` runs of the best size."""
        if not self.degrees:
            return _MOST_BELOW
        wide = float(special.stdtrit(self.degrees, 0.95)) * self.sd / np.sqrt(runs)
        return float(np.clip(wide, LEAST_BELOW, _MOST_BELOW))


@dataclass(frozen=True)
class Budget:
    """One budget's points and the linear algebra of its parabola."""

    flops: float
    log_params: np.ndarray
    log_tokens: np.ndarray
    loss: np.ndarray

    @cached_property
    def centre(self) -> float:
        return float(self.log_params.mean())

    @cached_property
    def design(self) -> np.ndarray:
        z = self.log_params - self.centre
        return np.stack([np.ones_like(z), z, z * z], axis=1)

    @cached_property
    def leverage(self) -> np.ndarray:
        """Of each point on its own fitted loss, 0 to 1."""
        return np.clip(np.einsum("ij,ji->i", self.design, self.inverse), 0, 1)

    @cached_property
    def inverse(self) -> np.ndarray:
        """Of the design, (3, n): from losses to coefficients."""
        return np.linalg.pinv(self.design)

    def coefficients(self, losses: np.ndarray) -> np.ndarray:
        """losses (..., n) -> (..., 3)."""
        return losses @ self.inverse.T

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of the coefficients (3, 3), for losses with a standard deviation of 1."""
        return self.inverse @ self.inverse.T

    def minimum_stderr(self, coefficients: np.ndarray, sd: float) -> tuple[float, float]:
        """Standard errors of log params and loss at the minimum, by the delta method; sd: relative, of one run."""
        c0, c1, c2 = coefficients
        z = -c1 / (2 * c2)
        scale = sd * float(self.loss.mean())
        by_size, by_loss = np.array([0, 1, 2 * z]) / (2 * c2), np.array([1, z, z * z])
        own = (scale * float(np.sqrt(way @ self.covariance @ way)) for way in (by_size, by_loss))
        at, loss = own
        return at, loss

    def drawn(self, left: np.ndarray, bootstraps: int, rng: np.random.Generator) -> np.ndarray:
        """Coefficients (R, 3) of parabolas through the fitted losses with relative residuals drawn from `left`."""
        fit = self.design @ self.coefficients(self.loss)
        return self.coefficients(fit * (1 + rng.choice(left, (bootstraps, len(fit)))))

    def minima(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) -> log params and loss at the minimum (...,), NaN if the parabola opens downwards."""
        c0, c1, c2 = (coefficients[..., place] for place in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(c2 > 0, -c1 / (2 * c2), np.nan)
        return z + self.centre, c0 + c1 * z + c2 * z * z

    def lowest(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, 3) -> log params and loss at the lowest point between the smallest and the largest size (R,).

        Where a parabola's minimum is not between them, an end is lowest.
        """
        least, most = self.ends
        at, _ = self.minima(coefficients)
        losses = [self.loss_at(coefficients, np.full(len(at), end)) for end in (least, most)]
        size = np.where((least < at) & (at < most), at, np.array([least, most])[np.argmin(losses, axis=0)])
        return size, self.loss_at(coefficients, size)

    def loss_at(self, coefficients: np.ndarray, log_params: np.ndarray) -> np.ndarray:
        """Of the parabolas (R, 3) at log params (R,)."""
        z = log_params - self.centre
        c0, c1, c2 = coefficients.T
        return c0 + c1 * z + c2 * z * z

    def open_at_ends(self, log_params: np.ndarray) -> np.ndarray:
        """Infinite at the smallest or the largest size, because the optimum may be anywhere beyond."""
        least, most = self.ends
        return np.where(log_params <= least, -np.inf, np.where(log_params >= most, np.inf, log_params))

    def without(self, places: Sequence[int]) -> Budget:
        """The other points."""
        left = [np.delete(column, places) for column in (self.log_params, self.log_tokens, self.loss)]
        return Budget(self.flops, *left)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest log params that were run."""
        return float(self.log_params.min()), float(self.log_params.max())

    def fault(self, coefficients: np.ndarray, noise: Noise) -> str:
        """Why the minimum of the fitted parabola (3,) does not count: a status of `Optimum`; empty if it does."""
        if coefficients[2] <= 0:
            return "concave"
        at, _ = self.minima(coefficients)
        if not self.log_params.min() < at < self.log_params.max():
            return "edge"
        sizes, means, runs = self.by_size
        best = int(means.argmin())
        nearest = sizes[np.abs(sizes - at).argmin()] - self.centre
        there = np.polynomial.polynomial.polyval(nearest, coefficients)  # the lowest loss that the sizes could show
        return "poor fit" if there < means[best] * (1 - noise.allowed(int(runs[best]))) else ""

    def near_edge(self, log_params: float) -> bool:
        """Whether it is at most one size away from the smallest or largest that was run."""
        sizes = self.by_size[0]
        return not sizes[1] < log_params < sizes[-2]

    @cached_property
    def by_size(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log sizes (S,), the mean loss of each, and how many runs it had."""
        sizes, place, runs = np.unique(self.log_params, return_inverse=True, return_counts=True)
        return sizes, np.bincount(place, self.loss) / runs, runs

    def tokens_at(self, log_params: np.ndarray) -> np.ndarray:
        """log tokens, on the straight line through the points; exact where flops = 6 params tokens."""
        z = self.log_params - self.centre
        slope = float(z @ self.log_tokens) / float(z @ z)
        return self.log_tokens.mean() + slope * (log_params - self.centre)


def residuals(budgets: list[Budget]) -> np.ndarray:
    """Relative residuals of all parabolas, each over sqrt(1 - leverage); those of exact fits carry no information."""
    found = []
    for budget in budgets:
        leverage = budget.leverage
        if len(budget.loss) > 3:
            fit = budget.design @ budget.coefficients(budget.loss)
            free = leverage < 1 - 1e-9
            found.append(((budget.loss - fit) / fit)[free] / np.sqrt(1 - leverage[free]))
    pooled = np.concatenate(found) if found else np.empty(0)
    return pooled - pooled.mean() if len(pooled) else pooled


def scatter(budgets: list[Budget]) -> Noise:
    """Of runs about the parabolas of all budgets."""
    squares, degrees = 0.0, 0
    for budget in budgets:
        fit = budget.design @ budget.coefficients(budget.loss)
        squares += float(np.sum((budget.loss / fit - 1) ** 2))
        degrees += len(budget.loss) - 3
    return Noise(float(np.sqrt(squares / degrees)), degrees) if degrees else Noise(0.0, 0)


def noise(budgets: list[Budget]) -> Noise:
    """From runs that repeat a size of their budget; if there are none, from the residuals of the parabolas."""
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
