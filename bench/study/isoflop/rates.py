"""The learning-rate rule of each method, from a small sweep at the smallest budget.

The rule is lr = lr_at_128 x sqrt(128 / d_model); the sweep finds lr_at_128 for each method. Loss is taken as a
parabola in log lr, the same for every size of the sweep but for its level. It is fitted by a loss that grows linearly
with a large residual: near its highest usable rate a small model now and then ends far above its neighbours, on one
seed and not on another, and least squares would let one such run of sixteen decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.isoflop import LearningRate, Tried
from bench.study.isoflop.grid import Job, Loss

_RESIDUAL = 0.02  # nats, from which on a residual counts linearly: about the spread over seeds


def settle(jobs: Sequence[Job], loss: Loss, given: float) -> LearningRate:
    """The rule that the finished `jobs` of one method speak for; `given` where there was no sweep."""
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
    usable = _usable(tried)
    if len({each.lr_at_128 for each in usable}) < 3:
        return LearningRate(lr_at_128=given, status="given", tried=tried)
    best, status = _best(usable)
    return LearningRate(lr_at_128=float(f"{best:.3g}"), status=status, tried=tried)


def _usable(tried: Sequence[Tried]) -> list[Tried]:
    """The runs that ended well, of the rates at which more than half did."""
    ended = [each for each in tried if each.val_loss_nats is not None]
    return [
        each for each in ended
        if 2 * sum(other.lr_at_128 == each.lr_at_128 for other in ended)
        > sum(other.lr_at_128 == each.lr_at_128 for other in tried)
    ]  # fmt: skip


def _best(tried: Sequence[Tried]) -> tuple[float, str]:
    """The parabola's minimum, or the end of the rates tried that lies toward it; of a hill, the best rate tried."""
    from scipy.optimize import least_squares

    shapes = sorted({(each.n_layers, each.d_model) for each in tried})
    z = np.log([each.lr_at_128 for each in tried])
    centre = z.mean()
    levels = [[float((each.n_layers, each.d_model) == shape) for shape in shapes] for each in tried]
    design = np.column_stack([np.array(levels), z - centre, (z - centre) ** 2])
    losses = np.array([each.val_loss_nats for each in tried])
    start = np.linalg.lstsq(design, losses, rcond=None)[0]
    fit = least_squares(lambda x: design @ x - losses, start, lambda _: design, loss="soft_l1", f_scale=_RESIDUAL)
    *height, slope, bend = fit.x
    rates = sorted({each.lr_at_128 for each in tried})
    if bend > 0:
        at = float(np.exp(centre - slope / (2 * bend)))
        inside = min(max(at, rates[0]), rates[-1])
        return inside, "fitted" if rates[0] < at < rates[-1] else "edge"
    above = losses - np.array(levels) @ height
    best = min(rates, key=lambda rate: float(np.median(above[z == np.log(rate)])))
    return best, "edge" if best in (rates[0], rates[-1]) else "tried"
