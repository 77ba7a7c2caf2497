"""The learning-rate rule of each method, from a small sweep at the smallest budget.

The rule is lr = lr_at_128 x sqrt(128 / d_model); the sweep finds lr_at_128 for each method. The loss is modelled as a
parabola in log lr, with one level for each size. The fit is robust, linear in large residuals: near the highest usable
rate a small model sometimes ends far above its neighbours, on one seed and not on another, and would dominate a least-
squares fit. Excluded are rates from the lowest diverging one upwards, and rates beyond a cliff.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.isoflop.run.grid import Loss
from bench.records.isoflop import LearningRate, Tried
from bench.runs.pool import Job

_RESIDUAL = 0.02  # nats, above which a residual counts linearly: about the standard deviation over seeds
_CLIFF = 0.3  # nats above the best rate (median over runs), above which a higher rate is excluded from the fit
_FAR = 100.0  # of a log rate: beyond any rate in use


def choose_learning_rate(jobs: Sequence[Job], loss: Loss, given: float) -> LearningRate:
    """The rule of one method from its finished `jobs`; `given` if there was no sweep."""
    tried = [
        Tried(
            n_layers=job.config.model.n_layers,
            d_model=job.config.model.d_model,
            lr_at_128=job.config.train.lr_at_128,
            seed=job.config.seed,
            val_loss_nats=loss(job.config),
        )
        for job in jobs
    ]
    rule = LearningRate(lr_at_128=given, status="given", tried=tried)
    if len({each.lr_at_128 for each in tried}) < 3 or not rule.steady:
        return rule
    best, status = _best(rule.steady)
    return LearningRate(lr_at_128=float(f"{best:.3g}"), status=status, tried=tried)


def _best(tried: Sequence[Tried]) -> tuple[float, str]:
    """The parabola's minimum, or the grid edge towards it; if the fit is rejected, the best rate tried."""
    size = np.array([f"{each.n_layers} x {each.d_model}" for each in tried])
    rate, loss = (np.array([getattr(each, name) for each in tried]) for name in ("lr_at_128", "val_loss_nats"))
    level = {name: np.median(loss[size == name]) for name in np.unique(size)}
    above = loss - np.array([level[name] for name in size])
    typical = {float(each): float(np.median(above[rate == each])) for each in np.unique(rate)}
    best = min(typical, key=typical.__getitem__)
    near = [each for each, value in typical.items() if each <= best or value < typical[best] + _CLIFF]
    kept = np.isin(rate, near)
    at = _minimum(size[kept], rate[kept], loss[kept]) if len(near) >= 3 else None
    if at is not None:
        return min(max(at, near[0]), near[-1]), "fitted" if near[0] < at < near[-1] else "edge"
    return best, "edge" if best in (near[0], near[-1]) else "tried"


def _minimum(size: np.ndarray, rate: np.ndarray, loss: np.ndarray) -> float | None:
    """The rate at the parabola's minimum; None if it opens downwards."""
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
    return float(np.exp(np.clip(centre - slope / (2 * bend), -_FAR, _FAR)))
