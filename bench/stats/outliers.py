"""Outlier runs: farther off the parabola through the other runs of their budget than noise explains.

The test is the generalised extreme studentised deviate (Rosner 1983, Technometrics 25). Each run has a statistic: its
leave-one-out residual from the parabola through the others, over its standard error. The run with the largest statistic
is removed before the next one is sought. Losses that do not follow a parabola leave large residuals after any removal,
so they have no outlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.stats.budget import LEAST_BELOW, Budget

_RISK = 0.01  # probability of a false outlier in a budget that has none
_LEAST_OFF = 0.02  # of the loss: a run closer to the fit does little harm
_FEWEST = 6  # runs: with fewer it is unclear which of them is off
_ONE_IN = 8  # runs, or one: if more are off, the parabola is wrong


@dataclass(frozen=True)
class Outlier:
    """A run excluded from its budget's parabola. off: its loss over the fit of the others, minus 1."""

    params: float
    loss: float
    off: float


def without_outliers(budget: Budget) -> tuple[Budget, list[Outlier]]:
    """The budget without its outliers, and the outliers."""
    if len(np.unique(budget.log_params)) < 3:
        return budget, []
    taken: list[int] = []
    wrong = 0
    for _ in range(max(1, len(budget.loss) // _ONE_IN)):
        left = np.delete(np.arange(len(budget.loss)), taken)
        if len(left) < _FEWEST:
            break
        place, certain = _farthest(budget.without(taken))
        taken.append(int(left[place]))
        if certain and abs(_off(budget, taken, taken[-1])) > _LEAST_OFF:
            wrong = len(taken)
    out = taken[:wrong]
    found = [Outlier(float(np.exp(budget.log_params[at])), float(budget.loss[at]), _off(budget, out, at)) for at in out]
    return budget.without(out), found


def _farthest(budget: Budget) -> tuple[int, bool]:
    """The run farthest from the parabola through the others, and whether that is more than noise explains."""
    residuals = budget.loss - budget.design @ budget.coefficients(budget.loss)
    free = 1 - budget.leverage
    known = free > 1e-9  # a point that the parabola always passes through carries no information
    squares = np.where(known, residuals**2 / np.where(known, free, 1.0), 0.0)
    degrees = len(residuals) - 4
    of_others = np.sqrt(np.maximum(np.sum(residuals**2) - squares, 0.0) / degrees)
    ratio = np.sqrt(squares) / np.maximum(of_others, LEAST_BELOW * budget.loss.mean())
    place = int(ratio.argmax())
    return place, bool(ratio[place] > special.stdtrit(degrees, 1 - _RISK / (2 * len(residuals))))


def _off(budget: Budget, taken: list[int], at: int) -> float:
    """Distance of a run's loss from the parabola through the runs that were not removed, as a share of it."""
    others = budget.without(taken)
    z = budget.log_params[at] - others.centre
    expected = float(np.polynomial.polynomial.polyval(z, others.coefficients(others.loss)))
    return float(budget.loss[at]) / expected - 1
