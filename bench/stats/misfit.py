"""Whether losses follow parabolas: a cubic term that all budgets of a method share, and how far it moves the minima.

Far from the optimum losses rise faster on one side than on the other. A parabola through a wide grid then has its
minimum in the wrong place, by an amount that its own standard error does not cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.stats.budget import Budget


@dataclass(frozen=True)
class Misfit:
    """cubic: the root of an unbiased estimate of its square, relative to the loss; 0 if noise explains it.

    p: of no cubic term.
    """

    cubic: float = 0.0
    p: float = 1.0

    def shift(self, budget: Budget, coefficients: np.ndarray) -> float:
        """By how much log params at the minimum would move, to first order, with the cubic term in the fit."""
        _, c1, c2 = coefficients
        z = -c1 / (2 * c2)
        own = np.linalg.pinv(budget.design) @ (budget.log_params - budget.centre) ** 3
        slope = self.cubic * float(budget.loss.mean()) * (3 * z * z - own[1] - 2 * own[2] * z)
        return float(-slope / (2 * c2))


def misfit(budgets: list[Budget]) -> Misfit:
    """The F test of the shared cubic term; what noise adds to the square of its estimate is taken off."""
    cubes, left, degrees = [], [], -1
    for budget in budgets:
        if len(np.unique(budget.log_params)) < 4:
            continue
        design = budget.design
        cube = (budget.log_params - budget.centre) ** 3
        fit = design @ budget.coefficients(budget.loss)
        cubes.append(cube - design @ (np.linalg.pinv(design) @ cube))
        left.append(budget.loss / fit - 1)
        degrees += len(fit) - 3
    if degrees < 1:
        return Misfit()
    cube, residual = np.concatenate(cubes), np.concatenate(left)
    cubic = float(cube @ residual) / float(cube @ cube)
    explained = cubic**2 * float(cube @ cube)
    remaining = max(float(residual @ residual) - explained, 0.0) / degrees
    if explained <= remaining:
        return Misfit()
    ratio = explained / remaining if remaining else np.inf
    return Misfit(cubic * float(np.sqrt(1 - 1 / ratio)), float(stats.f.sf(ratio, 1, degrees)))
