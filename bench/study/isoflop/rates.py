"""The learning-rate rule of each method, from a small sweep at the smallest budget.

The rule is lr = lr_at_128 x sqrt(128 / d_model); the sweep finds lr_at_128 for each method. Loss is taken as a
parabola in log lr, the same for both sizes of the sweep but for its level; where that has no minimum among the rates
tried, the rate of the lowest mean loss is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.isoflop import LearningRate, Tried
from bench.study.isoflop.grid import Job, Loss


def settle(jobs: Sequence[Job], loss: Loss, given: float) -> LearningRate:
    """The rule that the finished `jobs` of one method speak for; `given` where there was no sweep."""
    tried = [
        Tried(
            n_layers=job.config.model.n_layers,
            d_model=job.config.model.d_model,
            lr_at_128=job.config.train.lr_at_128,
            val_loss_nats=loss(job.config),
        )
        for job in jobs
    ]
    usable = [each for each in tried if each.val_loss_nats is not None]
    if len({each.lr_at_128 for each in usable}) < 3:
        return LearningRate(lr_at_128=given, status="given", tried=tried)
    best, status = _lowest(usable)
    return LearningRate(lr_at_128=float(f"{best:.3g}"), status=status, tried=tried)


def _lowest(tried: Sequence[Tried]) -> tuple[float, str]:
    """The minimum of the parabola where it lies between the rates tried, or else the best of those."""
    shapes = sorted({(each.n_layers, each.d_model) for each in tried})
    z = np.log([each.lr_at_128 for each in tried])
    centre = z.mean()
    levels = [[float((each.n_layers, each.d_model) == shape) for shape in shapes] for each in tried]
    design = np.column_stack([np.array(levels), z - centre, (z - centre) ** 2])
    losses = np.array([each.val_loss_nats for each in tried])
    *_, slope, bend = np.linalg.lstsq(design, losses, rcond=None)[0]
    rates = sorted({each.lr_at_128 for each in tried})
    whole = [rate for rate in rates if sum(each.lr_at_128 == rate for each in tried) == len(shapes)]  # none diverged
    best = min(whole or rates, key=lambda rate: _mean_loss(tried, rate))
    at = float(np.exp(centre - slope / (2 * bend))) if bend > 0 else best
    if best in (rates[0], rates[-1]):
        return best, "edge"
    return (at, "fitted") if bend > 0 and rates[0] < at < rates[-1] else (best, "tried")


def _mean_loss(tried: Sequence[Tried], rate: float) -> float:
    return float(np.mean([each.val_loss_nats for each in tried if each.lr_at_128 == rate]))
