"""The learning-rate rule of each method, from a small sweep at the smallest budget.

The rule is lr = lr_at_128 x sqrt(128 / d_model); the sweep finds lr_at_128 for each method. Loss is taken as a
parabola in log lr, the same for both sizes of the sweep but for its level.
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
    shapes = sorted({(each.n_layers, each.d_model) for each in tried})
    z = np.log([each.lr_at_128 for each in tried])
    centre = z.mean()
    levels = [[float((each.n_layers, each.d_model) == shape) for shape in shapes] for each in tried]
    design = np.column_stack([np.array(levels), z - centre, (z - centre) ** 2])
    losses = np.array([each.val_loss_nats for each in tried])
    *_, slope, bend = np.linalg.lstsq(design, losses, rcond=None)[0]
    low, high = float(z.min()), float(z.max())
    at = centre - slope / (2 * bend) if bend > 0 else (low if slope > 0 else high)
    inside = low < at < high
    return float(np.exp(np.clip(at, low, high))), "fitted" if inside else "edge"
