"""What a training step of each method and shape costs: all of them in turn in one process, with nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from bench.data import Batches, Corpus
from bench.isoflop import Timed
from bench.machine import Machine
from bench.measure.speed import fixed_batch, interleave, ratios
from bench.methods import build_model
from bench.record import Timing
from bench.study.isoflop.grid import Job
from bench.train.step import Trainee


def time_steps(jobs: dict[tuple[str, int], Job], corpus: Corpus, machine: Machine, rounds: int) -> list[Timed]:
    """(method, rung) -> its step, and over that of dense on the same rung where dense is among them."""
    actions = [_step(job, corpus, machine) for job in jobs.values()]
    seconds = dict(zip(jobs, interleave(actions, rounds, machine.device), strict=True))
    return [
        Timed(
            method=name,
            n_layers=job.config.model.n_layers,
            d_model=job.config.model.d_model,
            step_tokens=job.plan.batch_tokens,
            step_flops=job.plan.step_flops,
            step_seconds=Timing.of(seconds[name, rung]),
            over_dense=_over(seconds[name, rung], seconds.get(("dense", rung))) if name != "dense" else None,
        )
        for (name, rung), job in jobs.items()
    ]


def _over(own: Sequence[float], dense: Sequence[float] | None):
    return Timing.of(ratios(own, dense)) if dense is not None else None


def _step(job: Job, corpus: Corpus, machine: Machine) -> Callable[[], object]:
    config = job.config
    model = build_model(job.plan.model, config.method, corpus.tokenizer.vocab_size, config.seed)
    torch.manual_seed(config.seed)
    trainee = Trainee(model, config.train, config.model.d_model, machine.device)
    batches = Batches(corpus.train, config.model.context, config.train.batch_size, config.seed)
    return fixed_batch(*batches.at(0), trainee.step)
