"""Runs that went wrong: so far off the parabola through the others of their budget that noise does not explain it.

Each run is held to the parabola through the others: its leave-one-out residual over its standard error, of which the
largest is a run's that is taken out before the next is looked for (the generalised extreme studentised deviate, Rosner
1983, Technometrics 25). Losses that are no parabola at all leave large residuals however few are taken out, and have no
outlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.stats.budget import LEAST_BELOW, Budget

_RISK = 0.01  # of taking a run for an outlier in a budget that has none
_LEAST_OFF = 0.02  # of the loss: what is closer to the others does little harm
_FEWEST = 6  # runs: with fewer it is unclear which of them is off
_ONE_IN = 8  # runs, or one: what is off in more of them is the parabola


@dataclass(frozen=True)
class Outlier:
    """A run excluded from its budget's parabola. off: its loss over the fit of the others, minus 1."""

    params: float
    loss: float
    off: float


def without_outliers(budget: Budget) -> tuple[Budget, list[Outlier]]:
    """The budget without the runs that went wrong, and those."""
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
    """The run that is farthest from the parabola through the others, and whether noise does not explain it."""
    residuals = budget.loss - budget.design @ budget.coefficients(budget.loss)
    free = 1 - budget.leverage
    known = free > 1e-9  # a size that the parabola cannot but go through tells nothing
    squares = np.where(known, residuals**2 / np.where(known, free, 1.0), 0.0)
    degrees = len(residuals) - 4
    of_others = np.sqrt(np.maximum(np.sum(residuals**2) - squares, 0.0) / degrees)
    ratio = np.sqrt(squares) / np.maximum(of_others, LEAST_BELOW * budget.loss.mean())
    place = int(ratio.argmax())
    return place, bool(ratio[place] > stats.t.ppf(1 - _RISK / (2 * len(residuals)), degrees))


def _off(budget: Budget, taken: list[int], at: int) -> float:
    """How far the loss of a run is from the parabola through all that are not taken out, in shares of that."""
    others = budget.without(taken)
    z = budget.log_params[at] - others.centre
    expected = float(np.polynomial.polynomial.polyval(z, others.coefficients(others.loss)))
    return float(budget.loss[at]) / expected - 1
