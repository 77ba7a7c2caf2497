"""The order in which an isoFLOP study trains its runs, which does not change what is run."""

from __future__ import annotations

import hashlib
import random

import pytest
from test_isoflop_grid import grid

from bench.config.identity import run_folder
from bench.errors import UserError
from bench.isoflop.run.grid import Grid, best_of
from bench.isoflop.run.learning_rates import choose_learning_rate
from bench.isoflop.run.scheduler import Ended, schedule

MORE = ("study.grid.rates=[0.5,1,2]", "study.grid.seeds=2", "train.lr_at_128=1e-3")


class Made(Ended):
    """Runs that end when they are told to; a loss follows from the configuration."""

    def __init__(self, diverged=lambda config: False):
        super().__init__()
        self.diverged = diverged

    def has(self, job) -> bool:
        return run_folder(job.config) in self._losses

    def end(self, job) -> None:
        self._losses[run_folder(job.config)] = self.loss_of(job.config)

    def loss_of(self, config):
        if self.diverged(config):
            return None
        return 1.0 + int(hashlib.sha256(run_folder(config).name.encode()).hexdigest()[:6], 16) / 1e7


def names(jobs) -> list[str]:
    return [run_folder(job.config).name for job in jobs]


def stage_by_stage(made: Grid, ended: Made) -> dict[str, list[str]]:
    """The runs of a study whose stages wait for one another, each decided by the whole stage before."""
    sweeps = made.learning_rates()
    sizes = made.sizes(
        {name: choose_learning_rate(jobs, ended.loss_of, 1e-3).lr_at_128 for name, jobs in sweeps.items()}
    )
    for key, jobs in sizes.items():
        while (longer := made.extended(jobs, ended.loss_of)) != jobs:
            jobs = sizes[key] = longer
    optima = {key: best_of(jobs, ended.loss_of) for key, jobs in sizes.items()}
    stages = {"rates": sum(sweeps.values(), []), "grid": sum(sizes.values(), []), "seeds": made.seeds(optima),
              "controls": made.controls(optima)}  # fmt: skip
    return {stage: names(jobs) for stage, jobs in stages.items()}


@pytest.mark.parametrize("seed", range(5))
def test_schedule_any_order_of_ending_gives_the_runs_of_sequential_stages(seed):
    made, ended, rng, trained = grid(*MORE), Made(), random.Random(seed), []
    while missing := schedule(made, ended).missing:
        under_way = missing[:3]
        trained.append(rng.choice(under_way))
        ended.end(trained[-1])
    now = schedule(made, ended)
    assert {stage: names(jobs) for stage, jobs in now.stages.items()} == stage_by_stage(made, Made())
    assert len(names(trained)) == len(set(names(trained)))
    assert now.ended_flops == pytest.approx(sum(job.flops for job in trained))


def test_schedule_starts_sizes_of_a_method_before_other_sweeps_end():
    made, ended = grid(*MORE), Made()
    sweeps = made.learning_rates()
    assert names(schedule(made, ended).missing) == names(sweeps["dense"] + sweeps["mod"])
    for job in sweeps["dense"]:
        ended.end(job)
    now = schedule(made, ended)
    assert list(now.learning_rates) == ["dense"] and {name for name, _ in now.sizes} == {"dense"}
    first = len(sweeps["mod"])
    assert names(now.missing[:first]) == names(sweeps["mod"])
    after = now.missing[first:]
    sizes = [job for jobs in now.sizes.values() for job in jobs]
    assert len(sizes) == 2 * 3 and set(names(after)) == set(names(sizes)) - set(names(sweeps["dense"]))
    assert [job.flops for job in after] == sorted((job.flops for job in after), reverse=True)


def test_schedule_starts_seeds_of_a_budget_before_other_budgets_end():
    made, ended = grid("study.grid.seeds=2", "study.grid.rates=[]"), Made()
    rung = {run_folder(job.config): made.rung(job) for jobs in schedule(made, ended).sizes.values() for job in jobs}
    ended.loss_of = lambda config: abs(made.ladder.index(config.model) - min(rung.values()) - 1) + 1.0  # not at an end
    (small, large) = made.budgets
    for job in schedule(made, ended).sizes["dense", small]:
        ended.end(job)
    missing = schedule(made, ended).missing
    seeds = [job for job in missing if job.config.seed == 1]
    assert [(job.config.method.name, job.flops) for job in seeds] == [("dense", small)]
    assert {job.flops for job in missing} == {small, large} and schedule(made, ended).stages["seeds"] == []


def test_schedule_names_the_method_whose_sizes_all_diverged():
    made = grid(*MORE)
    ended = Made(diverged=lambda config: config.method.name == "mod" and config.train.budget_flops == 8e10)
    with pytest.raises(UserError, match="every run of mod at 8e\\+10 FLOPs diverged"):
        while missing := schedule(made, ended).missing:
            ended.end(missing[0])
