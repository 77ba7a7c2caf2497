"""How a study stands: the runs it has by what has ended so far, and which of them are missing.

What follows is decided method by method and budget by budget, as soon as the runs that decide it have ended: sizes by
the method's learning-rate sweep, and one more size, then seeds and controls, by the sizes of a budget. So nobody waits
for a stage to end before the last runs of a study, and one that was stopped stands where its records say.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from bench.config.identity import run_folder
from bench.config.schema import RunConfig
from bench.isoflop.run.grid import Grid, Job, Sizes, best_of
from bench.isoflop.run.learning_rates import settle
from bench.records.isoflop import LearningRate
from bench.runs.prepared import finished


class Ended:
    """Runs that have ended, with their losses; each record is read once."""

    def __init__(self) -> None:
        self._losses: dict[Path, float | None] = {}

    def has(self, job: Job) -> bool:
        """Whether the run has ended, well or not."""
        folder = run_folder(job.config)
        if folder not in self._losses and (record := finished(job.config)) is not None:
            self._losses[folder] = record.quality.val_loss_nats if record.comparable and record.quality else None
        return folder in self._losses

    def loss(self, config: RunConfig) -> float | None:
        """With the causal router, of a run that `has` has seen ended; None where it diverged or failed its audit."""
        return self._losses[run_folder(config)]


@dataclass
class Standing:
    """learning_rates: of the methods whose sweep has ended; sizes: theirs, as far as they are known.

    stages: what each run is for, with the runs that have ended; missing: the others, in the order to run them in.
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


def standing(grid: Grid, ended: Ended) -> Standing:
    """How the study of `grid` stands. Raises UserError where every size of a method and budget diverged."""
    sweeps, given = grid.rates(), grid.config.train.lr_at_128
    swept = {name: jobs for name, jobs in sweeps.items() if all(map(ended.has, jobs))}
    rules = {name: settle(jobs, ended.loss, given) for name, jobs in swept.items()}
    windows = grid.sizes({name: rule.lr_at_128 for name, rule in rules.items()})
    sizes = {key: _as_far_as_known(grid, jobs, ended) for key, jobs in windows.items()}
    settled = {key: jobs for key, jobs in sizes.items() if all(map(ended.has, jobs))}
    optima = {key: best_of(jobs, ended.loss) for key, jobs in settled.items()}
    stages = {
        "rates": list(itertools.chain.from_iterable(sweeps.values())),
        "grid": list(itertools.chain.from_iterable(sizes.values())),
        "seeds": grid.seeds(optima),
        "controls": grid.controls(optima),
    }
    return Standing(
        learning_rates=rules,
        sizes=sizes,
        stages={stage: [job for job in jobs if ended.has(job)] for stage, jobs in stages.items()},
        missing=_missing(stages, ended),
    )


def _as_far_as_known(grid: Grid, window: list[Job], ended: Ended) -> list[Job]:
    """The window, and rungs beyond it until the best run does not stand at an end."""
    jobs = window
    while all(map(ended.has, jobs)):
        longer = grid.extended(jobs, ended.loss)
        if longer == jobs:
            break
        jobs = longer
    return jobs


def _missing(stages: dict[str, list[Job]], ended: Ended) -> list[Job]:
    """Each once: the sweep, which all else waits for, then the largest first, so that the last ones are short."""
    jobs = [job for jobs in stages.values() for job in jobs if not ended.has(job)]
    sweep = {run_folder(job.config) for job in stages["rates"]}
    once = {run_folder(job.config): job for job in jobs}
    return [job for _, job in sorted(once.items(), key=lambda each: (each[0] not in sweep, -each[1].flops))]
