"""Loss over size at equal training FLOPs, as curves that optima and losses can be read off.

A curve is a parabola in the log of a size (total or active parameters, forward FLOPs/token), one per method and budget,
with bootstrap draws of its coefficients from the residuals of all of the method's budgets. Outlier runs are excluded,
and nothing is read off outside the sizes that were run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.formats import decimal, percent, power, scaled
from bench.isoflop.analysis.results import Results, title
from bench.stats.budget import Budget, Noise, noise, residuals
from bench.stats.interval import Interval
from bench.stats.outliers import Outlier, without_outliers

Size = Literal["params_total", "params_active", "forward_flops"]
DRAWS = 1000
_OUTSIDE = "optimum outside the grid"
FAULTS = {
    "": "",
    "concave": _OUTSIDE,
    "edge": _OUTSIDE,
    "poor fit": "fit rejected",  # the minimum is below the loss of every size by more than noise
}


@dataclass(frozen=True)
class Curve:
    """Loss over the log of a size. `draws` (R, 3): coefficients; empty if no residuals are left to draw from."""

    budget: Budget
    coefficients: np.ndarray
    draws: np.ndarray
    noise: Noise
    outliers: list[Outlier]

    @property
    def status(self) -> str:
        """Why its minimum is not an optimum; empty if it is. Nothing is read off a poor fit."""
        return self.budget.fault(self.coefficients, self.noise)

    @property
    def fault(self) -> str:
        """Why its minimum is not an optimum; empty if it is one."""
        return FAULTS[self.status]

    @property
    def inside(self) -> bool:
        """Whether it has an optimum between the smallest and the largest size."""
        return not self.fault

    @property
    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Log size and loss at the lowest point between the smallest and the largest size that were run (1 + R,).

        The fitted one first, then the drawn ones; where a parabola's minimum is not between them, an end is lowest.
        """
        return self.budget.lowest(self._all)

    @property
    def unbounded_optimum(self) -> np.ndarray:
        """Log size of the optimum (1 + R,); infinite where it is at an end, so that it may be anywhere beyond."""
        size, _ = self.optimum
        return self.budget.open_at_ends(size)

    def at(self, log_size: np.ndarray) -> np.ndarray:
        """Loss at log sizes (1 + R,), NaN outside the sizes that were run (by the first, which is the fitted one)."""
        least, most = self.budget.ends
        if not least - 1e-9 <= log_size[0] <= most + 1e-9:
            return np.full(len(log_size), np.nan)
        return self._loss(log_size)

    def smallest_reaching(self, loss: np.ndarray) -> np.ndarray:
        """The smallest log size whose loss is `loss` or less (1 + R,).

        Infinite if no size that was run reaches it, minus infinity if the smallest does.
        """
        least, most = self.budget.ends
        c0, c1, c2 = self._all.T
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(c1 * c1 - 4 * c2 * (c0 - loss)) / (2 * c2)
            falling = -c1 / (2 * c2) - spread + self.budget.centre  # where the parabola falls through `loss`
        within = np.isfinite(falling) & (least < falling) & (falling < most)
        reached = self._loss(np.full(len(loss), least)) <= loss
        return np.where(reached, -np.inf, np.where(within, falling, np.inf))

    def first(self, n: int) -> Curve:
        """The same with the fitted curve and n - 1 drawn ones, to go with another curve that has no more."""
        return replace(self, draws=self.draws[: n - 1])

    def _loss(self, log_size: np.ndarray) -> np.ndarray:
        return self.budget.loss_at(self._all, log_size)

    @property
    def _all(self) -> np.ndarray:
        return np.concatenate([self.coefficients[None], self.draws])


def curves(results: Results, size: Size) -> dict[tuple[str, float], Curve]:
    """(method, budget) -> its curve, for those with three sizes and more."""
    rng = np.random.default_rng(0)
    found = {}
    for method in results.methods:
        budgets, wrong = [], []
        for flops in results.budgets:
            own = results.cell(method, flops)
            if own[size].nunique() >= 3:
                columns = (own[name].to_numpy(dtype=float) for name in (size, "tokens"))
                log_size, log_tokens = (np.log(column) for column in columns)
                budget, out = without_outliers(Budget(flops, log_size, log_tokens, own["loss"].to_numpy(dtype=float)))
                budgets.append(budget)
                wrong.append(out)
        left, spread = residuals(budgets), noise(budgets)
        for budget, out in zip(budgets, wrong, strict=True):
            draws = budget.drawn(left, DRAWS, rng) if len(left) else np.empty((0, 3))
            found[method, budget.flops] = Curve(budget, budget.coefficients(budget.loss), draws, spread, out)
    return found


def outliers(results: Results) -> list[str]:
    """The runs that curves over forward FLOPs, which verdicts rest on, exclude, one line each."""
    return [
        f"By forward FLOPs, {title(method)} at {power(budget)} FLOPs: a run of {scaled(run.params)} forward "
        f"FLOPs/token is excluded as an outlier: its loss, {decimal(run.loss)}, is {percent(run.off)} off the fit."
        for (method, budget), curve in curves(results, "forward_flops").items()
        for run in curve.outliers
    ]


def with_draws(values: np.ndarray) -> Interval:
    """The fitted value, which comes first, with the interval of the drawn ones; an end may be infinite."""
    return Interval.from_draws(float(values[0]), values[1:])
