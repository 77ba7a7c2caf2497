"""In which order an isoFLOP study trains its runs, and that the order decides nothing."""

from __future__ import annotations

import hashlib
import random

import pytest
from test_isoflop_grid import grid

from bench.config.identity import run_folder
from bench.errors import UserError
from bench.isoflop.run.grid import Grid, best_of
from bench.isoflop.run.learning_rates import settle
from bench.isoflop.run.scheduler import Ended, standing

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
    sweeps = made.rates()
    sizes = made.sizes({name: settle(jobs, ended.loss_of, 1e-3).lr_at_128 for name, jobs in sweeps.items()})
    for key, jobs in sizes.items():
        while (longer := made.extended(jobs, ended.loss_of)) != jobs:
            jobs = sizes[key] = longer
    optima = {key: best_of(jobs, ended.loss_of) for key, jobs in sizes.items()}
    stages = {"rates": sum(sweeps.values(), []), "grid": sum(sizes.values(), []), "seeds": made.seeds(optima),
              "controls": made.controls(optima)}  # fmt: skip
    return {stage: names(jobs) for stage, jobs in stages.items()}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_ends_first_the_runs_are_those_of_stages_that_wait_for_one_another(seed):
    made, ended, rng, trained = grid(*MORE), Made(), random.Random(seed), []
    while missing := standing(made, ended).missing:
        under_way = missing[:3]
        trained.append(rng.choice(under_way))
        ended.end(trained[-1])
    now = standing(made, ended)
    assert {stage: names(jobs) for stage, jobs in now.stages.items()} == stage_by_stage(made, Made())
    assert len(names(trained)) == len(set(names(trained)))
    assert now.ended_flops == pytest.approx(sum(job.flops for job in trained))


def test_the_sweep_comes_first_and_a_methods_sizes_do_not_wait_for_another_methods():
    made, ended = grid(*MORE), Made()
    sweeps = made.rates()
    assert names(standing(made, ended).missing) == names(sweeps["dense"] + sweeps["mod"])
    for job in sweeps["dense"]:
        ended.end(job)
    now = standing(made, ended)
    assert list(now.learning_rates) == ["dense"] and {name for name, _ in now.sizes} == {"dense"}
    first = len(sweeps["mod"])
    assert names(now.missing[:first]) == names(sweeps["mod"])
    after = now.missing[first:]
    sizes = [job for jobs in now.sizes.values() for job in jobs]
    assert len(sizes) == 2 * 3 and set(names(after)) == set(names(sizes)) - set(names(sweeps["dense"]))
    assert [job.flops for job in after] == sorted((job.flops for job in after), reverse=True)


def test_seeds_of_a_budget_do_not_wait_for_the_sizes_of_another():
    made, ended = grid("study.grid.seeds=2", "study.grid.rates=[]"), Made()
    rung = {run_folder(job.config): made.rung(job) for jobs in standing(made, ended).sizes.values() for job in jobs}
    ended.loss_of = lambda config: abs(made.ladder.index(config.model) - min(rung.values()) - 1) + 1.0  # not at an end
    (small, large) = made.budgets
    for job in standing(made, ended).sizes["dense", small]:
        ended.end(job)
    missing = standing(made, ended).missing
    seeds = [job for job in missing if job.config.seed == 1]
    assert [(job.config.method.name, job.flops) for job in seeds] == [("dense", small)]
    assert {job.flops for job in missing} == {small, large} and standing(made, ended).stages["seeds"] == []


def test_sizes_that_all_diverged_are_told_by_name():
    made = grid(*MORE)
    ended = Made(diverged=lambda config: config.method.name == "mod" and config.train.budget_flops == 8e10)
    with pytest.raises(UserError, match="every run of mod at 8e\\+10 FLOPs diverged"):
        while missing := standing(made, ended).missing:
            ended.end(missing[0])
