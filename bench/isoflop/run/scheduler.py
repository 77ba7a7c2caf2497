"""The runs of a study, given those that have ended, and which of them are missing.

Runs are scheduled method by method and budget by budget, as soon as the runs they depend on have ended. Sizes depend on
the method's learning-rate sweep; a further size, seeds and ablations depend on the sizes of a budget. No stage waits
for another to end, and a study that was stopped resumes from its records.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from bench.config.identity import run_folder
from bench.config.schema import RunConfig
from bench.isoflop.run.grid import Grid, Sizes, best_of
from bench.isoflop.run.learning_rates import choose_learning_rate
from bench.records.isoflop import LearningRate
from bench.runs.pool import Job
from bench.runs.prepared import finished


class Ended:
    """Runs that have ended, with their losses; each record is read once."""

    def __init__(self) -> None:
        self._losses: dict[Path, float | None] = {}

    def has(self, job: Job) -> bool:
        """Whether the run has ended, successfully or not."""
        folder = run_folder(job.config)
        if folder not in self._losses and (record := finished(job.config)) is not None:
            self._losses[folder] = record.quality.val_loss_nats if record.comparable and record.quality else None
        return folder in self._losses

    def loss(self, config: RunConfig) -> float | None:
        """Validation loss of a run for which `has` was true; None if it diverged or failed its audit."""
        return self._losses[run_folder(config)]


@dataclass
class Schedule:
    """learning_rates: of the methods whose sweep has ended; sizes: theirs, as far as they are known.

    stages: the ended runs by purpose; missing: the other runs, in the order to run them.
    """

    learning_rates: dict[str, LearningRate]
    sizes: Sizes
    stages: dict[str, list[Job]]
    missing: list[Job]

    @property
    def ended_flops(self) -> float:
        """Training FLOPs of the runs that have ended, each once."""
        once = {run_folder(job.config): job.flops for jobs in self.stages.values() for job in jobs}
        return sum(once.values())


def schedule(grid: Grid, ended: Ended) -> Schedule:
    """The runs of `grid`, ended and missing. Raises UserError if every size of a method and budget diverged."""
    sweeps, given = grid.learning_rates(), grid.config.train.lr_at_128
    swept = {name: jobs for name, jobs in sweeps.items() if all(map(ended.has, jobs))}
    rules = {name: choose_learning_rate(jobs, ended.loss, given) for name, jobs in swept.items()}
    windows = grid.sizes({name: rule.lr_at_128 for name, rule in rules.items()})
    sizes = {key: _as_far_as_known(grid, jobs, ended) for key, jobs in windows.items()}
    complete = {key: jobs for key, jobs in sizes.items() if all(map(ended.has, jobs))}
    optima = {key: best_of(jobs, ended.loss) for key, jobs in complete.items()}
    stages = {
        "rates": list(itertools.chain.from_iterable(sweeps.values())),
        "grid": list(itertools.chain.from_iterable(sizes.values())),
        "seeds": grid.seeds(optima),
        "controls": grid.controls(optima),
    }
    return Schedule(
        learning_rates=rules,
        sizes=sizes,
        stages={stage: [job for job in jobs if ended.has(job)] for stage, jobs in stages.items()},
        missing=_missing(stages, ended),
    )


def _as_far_as_known(grid: Grid, window: list[Job], ended: Ended) -> list[Job]:
    """The window, extended until its best run is not at the grid edge."""
    jobs = window
    while all(map(ended.has, jobs)):
        longer = grid.extended(jobs, ended.loss)
        if longer == jobs:
            break
        jobs = longer
    return jobs


def _missing(stages: dict[str, list[Job]], ended: Ended) -> list[Job]:
    """Each once: the sweep first, since all else depends on it, then the largest first, so that the last are short."""
    jobs = [job for jobs in stages.values() for job in jobs if not ended.has(job)]
    sweep = {run_folder(job.config) for job in stages["rates"]}
    once = {run_folder(job.config): job for job in jobs}
    return [job for _, job in sorted(once.items(), key=lambda each: (each[0] not in sweep, -each[1].flops))]
