"""The learning-rate sweep of one method: the parabola through it, the rate it chooses, and what that rate may cost.

The loss is modelled as a parabola in log lr, with one level for each size. The fit is robust, linear in large
residuals: near the highest usable rate a small model sometimes ends far above its neighbours, on one seed and not on
another, and would dominate a least-squares fit. Excluded are rates from the lowest diverging one upwards, and rates
beyond a cliff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.records.isoflop import LearningRate, Tried
from bench.stats.difference import Source

_RESIDUAL = 0.02  # nats, above which a residual counts linearly: about the standard deviation over seeds
_CLIFF = 0.3  # nats above the best rate (median over runs), above which a higher rate is excluded from the fit
_FAR = 100.0  # of a log rate: beyond any rate in use


@dataclass(frozen=True)
class Parabola:
    """Of loss in log lr, opening upwards. `stderr` of the log rate at its minimum; `bend`: half its curvature, nats."""

    minimum: float
    bend: float
    stderr: float
    degrees: int

    @property
    def cost(self) -> Source:
        """Mean square of the loss above that at the true optimum, because the optimum was estimated, nats².

        The loss is flat at its minimum, so the error of the log rate, e, costs bend e² (delta method, second order).
        If e is normal with standard deviation s, the mean of (bend e²)² is 3 bend² s⁴.
        """
        return Source(3 * self.bend**2 * self.stderr**4, self.degrees)


@dataclass(frozen=True)
class Sweep:
    """rates: those in the fit, ascending. best: the rate of lowest median loss. parabola: None if there is none."""

    rates: list[float]
    best: float
    parabola: Parabola | None

    @property
    def choice(self) -> tuple[float, str]:
        """The parabola's minimum, or the end of the sweep towards it; if the fit is rejected, the best rate tried."""
        least, most = self.rates[0], self.rates[-1]
        if self.parabola is not None:
            at = float(np.exp(np.clip(self.parabola.minimum, -_FAR, _FAR)))
            return min(max(at, least), most), "fitted" if least < at < most else "edge"
        return self.best, "edge" if self.best in (least, most) else "tried"


def sweep(tried: Sequence[Tried]) -> Sweep:
    """Of one run or more that finished, at rates below the lowest at which one diverged."""
    size = np.array([f"{each.n_layers} x {each.d_model}" for each in tried])
    rate, loss = (np.array([getattr(each, name) for each in tried]) for name in ("lr_at_128", "val_loss_nats"))
    level = {name: np.median(loss[size == name]) for name in np.unique(size)}
    above = loss - np.array([level[name] for name in size])
    typical = {float(each): float(np.median(above[rate == each])) for each in np.unique(rate)}
    best = min(typical, key=typical.__getitem__)
    near = [each for each, value in typical.items() if each <= best or value < typical[best] + _CLIFF]
    kept = np.isin(rate, near)
    parabola = _parabola(size[kept], rate[kept], loss[kept]) if len(near) >= 3 else None
    return Sweep(near, best, parabola)


def rate_cost(rule: LearningRate | None) -> Source | None:
    """What the choice of a method's rate adds to the variance of its loss; None where no fitted parabola says so."""
    if rule is None or rule.status != "fitted":
        return None
    parabola = sweep(rule.steady).parabola
    return parabola.cost if parabola is not None and parabola.degrees > 0 else None


def _parabola(size: np.ndarray, rate: np.ndarray, loss: np.ndarray) -> Parabola | None:
    """None if it opens downwards. Standard error: delta method, Huber's covariance (1973, Ann. Stat. 1, 799-821)."""
    from scipy.optimize import least_squares

    z = np.log(rate)
    centre = z.mean()
    levels = (size[:, None] == np.unique(size)).astype(float)
    design = np.column_stack([levels, z - centre, (z - centre) ** 2])
    start = np.linalg.lstsq(design, loss, rcond=None)[0]
    fit = least_squares(lambda x: design @ x - loss, start, lambda _: design, loss="soft_l1", f_scale=_RESIDUAL)
    *_, slope, bend = fit.x
    if bend <= 0:
        return None
    n, terms = design.shape
    left = design @ fit.x - loss
    scaled = 1 + (left / _RESIDUAL) ** 2
    pull = left / np.sqrt(scaled)  # the robust loss's derivative by the residual; its own is scaled^-1.5
    variance = float(np.sum(pull**2)) / max(n - terms, 1) / float(np.mean(scaled**-1.5)) ** 2
    covariance = variance * np.linalg.pinv(design.T @ design)
    gradient = np.array([-1 / (2 * bend), slope / (2 * bend**2)])
    stderr = float(np.sqrt(gradient @ covariance[-2:, -2:] @ gradient))
    return Parabola(float(centre - slope / (2 * bend)), float(bend), stderr, n - terms)
