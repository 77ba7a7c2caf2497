"""The time of a training step of each method and shape, with nothing else running.

Steps of a method alternate with those of dense of the same shape. Only those two are built: all shapes would not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.data import Batches, Corpus
from bench.isoflop.run.session import Session
from bench.measure.machine import Machine
from bench.measure.speed import fixed_batch, interleave, ratios
from bench.records.isoflop import Timed
from bench.records.record import Timing
from bench.runs.pool import Job
from bench.train.step import Trainee


def time_steps(
    session: Session, jobs: Mapping[tuple[str, int], Job], corpus: Corpus, machine: Machine, rounds: int
) -> None:
    """Add to the study's timings those of `jobs` that are missing: (method, rung of the ladder) -> a run of it.

    Saves after each. Raises Interrupted past the deadline; the next session continues from there.
    """
    study = session.study
    for (name, rung), job in jobs.items():
        shape = (name, job.config.model.n_layers, job.config.model.d_model)
        if shape in {(timed.method, timed.n_layers, timed.d_model) for timed in study.timings}:
            continue
        session.check()
        dense = jobs.get(("dense", rung)) if name != "dense" else None
        study.timings = [*study.timings, _timed(name, job, dense, corpus, machine, rounds)]
        session.save()


def _timed(name: str, job: Job, dense: Job | None, corpus: Corpus, machine: Machine, rounds: int) -> Timed:
    actions = [_step(each, corpus, machine) for each in (job, dense) if each is not None]
    seconds = interleave(actions, rounds, machine.device)
    return Timed(
        method=name,
        n_layers=job.config.model.n_layers,
        d_model=job.config.model.d_model,
        step_tokens=job.plan.batch_tokens,
        step_flops=job.plan.step_flops,
        step_seconds=Timing.of(seconds[0]),
        over_dense=Timing.of(ratios(*seconds)) if dense is not None else None,
    )


def _step(job: Job, corpus: Corpus, machine: Machine) -> Callable[[], object]:
    config = job.config
    trainee = Trainee.of(config, job.plan.model, corpus.tokenizer.vocab_size, machine.device)
    batches = Batches(corpus.train, config.model.context, config.train.batch_size, config.seed)
    return fixed_batch(*batches.at(0), trainee.step)
