"""Whether losses follow parabolas: a cubic term that all budgets of a method share, and how far it moves the minima.

Far from the optimum losses rise faster on one side than on the other. A parabola through a wide grid then has its
minimum in the wrong place, by an amount that its own standard error does not cover and that all budgets share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.stats.budget import Budget


@dataclass(frozen=True)
class Misfit:
    """cubic: relative to the loss, also where noise explains it, because a test before it would hide shifts as large as
    the standard error. p: of no cubic term.
    """

    cubic: float = 0.0
    p: float = 1.0

    def shift(self, budget: Budget, coefficients: np.ndarray) -> tuple[float, float]:
        """By how much log params and loss at the minimum would move, to first order, with the cubic term in the fit."""
        _, c1, c2 = coefficients
        z = -c1 / (2 * c2)
        own = budget.inverse @ (budget.log_params - budget.centre) ** 3
        cubic = self.cubic * float(budget.loss.mean())
        loss, slope = z**3 - own @ [1, z, z * z], 3 * z * z - own[1] - 2 * own[2] * z
        return float(-cubic * slope / (2 * c2)), float(cubic * loss)


def misfit(budgets: list[Budget]) -> Misfit:
    """The cubic term that budgets of four sizes and more share, by least squares, and its F test."""
    cubes, left, degrees = [], [], -1
    for budget in budgets:
        if len(np.unique(budget.log_params)) < 4:
            continue
        design = budget.design
        cube = (budget.log_params - budget.centre) ** 3
        fit = design @ budget.coefficients(budget.loss)
        cubes.append(cube - design @ (budget.inverse @ cube))
        left.append(budget.loss / fit - 1)
        degrees += len(fit) - 3
    if degrees < 1:
        return Misfit()
    cube, residual = np.concatenate(cubes), np.concatenate(left)
    cubic = float(cube @ residual) / float(cube @ cube)
    explained = cubic**2 * float(cube @ cube)
    remaining = max(float(residual @ residual) - explained, 0.0) / degrees
    return Misfit(cubic, float(special.fdtrc(1, degrees, explained / remaining)) if remaining else 0.0)
