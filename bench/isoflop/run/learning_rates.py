"""The learning-rate rule of each method, from a small sweep at the smallest budget.

The rule is lr = lr_at_128 x sqrt(128 / d_model); the sweep finds lr_at_128 for each method.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.isoflop.analysis.rate_sweep import sweep
from bench.isoflop.run.grid import Loss
from bench.records.isoflop import LearningRate, Tried
from bench.runs.pool import Job


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
    best, status = sweep(rule.steady).choice
    return LearningRate(lr_at_128=float(f"{best:.3g}"), status=status, tried=tried)
