"""Profile intervals of the parametric law: all values of a quantity at which the other parameters still fit the points.

A value is inside if the lowest Huber loss at that value is above the lowest of all by no more than noise explains: the
drop-in-dispersion test of Schrader and Hettmansperger (1980, Biometrika 67, 93-101), with Student's t for the estimated
noise. Unlike percentiles of resampled fits, such an interval follows the curvature of the law, and is open where the
points do not bound the quantity. The noise is taken to be normal with the fit's own Huber loss, which is cautious if
its tails are heavier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.stats.huber import LawCost, Pull, Quantity, noise_of, score_moments
from bench.stats.power_laws import t_quantile

_ROUNDS = 8
_CLOSE = 0.02  # relative change of the distance to an end, by which it is known well enough
_REACHED = 0.8  # of the distance in standard errors, from which the rest is extrapolated
_FARTHEST = 4.0  # factor by which a round moves an end
_STIFF = 30.0  # weight of the pull, relative to the curvature of the cost


@dataclass(frozen=True)
class Profile:
    """best: the parameters (5,) of least cost. rise: of the cost, at the ends of a 95 % interval."""

    cost: LawCost
    best: np.ndarray
    rise: float
    curvature: float  # of the cost, relative to that of squares

    @classmethod
    def of(cls, cost: LawCost, best: np.ndarray) -> Profile:
        degrees = len(cost.log_loss) - len(best)
        square, curvature = score_moments(noise_of(float(cost(best[None])[0]) / degrees))
        return cls(cost, best, square / curvature * t_quantile(degrees) ** 2 / 2, curvature)

    def ends(self, quantities: Sequence[Quantity]) -> np.ndarray:
        """Both ends (Q, 2) of each quantity's 95 % interval, infinite if open.

        The least cost at a value is found by a pull towards it: the value at which the pull leaves the quantity, and
        the cost there, are a point of the profile. Distances are scaled until the cost has risen by `rise`.
        """
        each = [quantity for quantity in quantities for _ in range(2)]
        sign = np.tile([-1.0, 1.0], len(quantities))
        best = np.tile(self.best, (len(sign), 1))
        centre, slopes = Pull(each, sign, sign)(best)
        jacobian = self.cost.residuals(self.best[None])[1][0]
        along = slopes @ np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)
        spread = np.sum(along * slopes, axis=1)  # variance of the quantity, for residuals of variance 1
        distance = np.sqrt(2 * self.rise / self.curvature * spread)
        pull = Pull(each, centre, _STIFF * self.curvature / spread)
        p = best + (sign * distance / spread)[:, None] * along
        least = self.cost(self.best[None])
        ends, power = sign * np.inf, np.ones(len(sign))
        reached, risen = np.zeros(len(sign)), np.zeros(len(sign))
        places = np.arange(len(sign))  # of the ends still to be found
        for _ in range(_ROUNDS):
            own = pull.rows(places)
            with np.errstate(all="ignore"):
                start = np.where((self.cost(p[places]) < least + 100 * self.rise)[:, None], p[places], self.best)
            aimed = replace(own, targets=centre[places] + sign[places] * distance[places])
            p[places] = self.cost.minimise(start, pull=aimed)
            away = np.maximum(sign[places] * (own(p[places])[0] - centre[places]), 1e-9 * distance[places])
            rise = np.sqrt(np.maximum(self.cost(p[places]) - least, 1e-6 * self.rise) / self.rise)
            with np.errstate(all="ignore"):
                slope = np.log(rise / risen[places]) / np.log(away / reached[places])
            power[places] = np.where(np.isfinite(slope), np.clip(slope, 0.3, 5.0), power[places])
            stuck = away < (1 + _CLOSE) * reached[places]  # no parameters take it any farther
            reached[places], risen[places] = away, rise
            factor = np.clip(rise ** (-1 / power[places]), 1 / _FARTHEST, _FARTHEST)
            ends[places] = np.where(rise > _REACHED, centre[places] + sign[places] * away * factor, ends[places])
            distance[places] *= factor
            p[places] = best[places] + (p[places] - best[places]) * factor[:, None]
            places = places[(np.abs(factor - 1) > _CLOSE) & ~(stuck & (rise < _REACHED))]
            if not len(places):
                break
        return ends.reshape(-1, 2)
