"""Which runs an isoFLOP study has, and the learning rates they get."""

from __future__ import annotations

import math
import re

import pytest

from bench.config.compose import configure
from bench.errors import UserError
from bench.isoflop.run.grid import Grid, best_of
from bench.isoflop.run.learning_rates import settle

SHAPES = [[2, 16, 1], [2, 24, 1], [2, 32, 2], [2, 48, 2], [4, 48, 2], [4, 64, 2]]


def grid(*overrides: str) -> Grid:
    words = ["+study=isoflop_cpu", f"study.grid.shapes={SHAPES}", "study.grid.budgets=[2e10,8e10]",
             "study.grid.methods=[dense,mod]", "study.grid.controls=[[mod,mod_random]]", "study.grid.sizes=3",
             "study.grid.control_budget=null", "study.grid.tokens_per_param=10", "model.context=64"]  # fmt: skip
    return Grid(configure([*words, *overrides]))


def test_windows_are_centred_where_tokens_over_parameters_are_as_asked():
    made = grid()
    for budget in made.budgets:
        window = made.window("dense", budget)
        plans = [made.job(made.methods["dense"], rung, budget, 0, 1e-3).plan for rung in range(len(SHAPES))]
        off = [abs(math.log(p.tokens / p.count.params_active / 10)) for p in plans]
        assert len(window) == 3 and off.index(min(off)) in window


def test_larger_budgets_and_cheaper_tokens_stand_higher_on_the_ladder():
    made = grid()
    small, large = made.budgets
    assert made.window("dense", small).start <= made.window("dense", large).start
    for budget in made.budgets:
        assert made.window("dense", budget).start <= made.window("mod", budget).start


def test_every_run_spends_its_budget_to_within_a_step():
    made = grid()
    for (_, budget), jobs in made.sizes({"dense": 1e-3, "mod": 1e-3}).items():
        for job in jobs:
            assert abs(job.plan.steps * job.plan.step_flops - budget) <= job.plan.step_flops
            assert job.flops == budget


def test_the_sweep_tries_every_multiple_at_two_sizes_of_the_smallest_budget_on_two_seeds():
    made = grid("train.lr_at_128=1e-3", "study.grid.rates=[0.5,1,2]")
    for jobs in made.rates().values():
        assert {job.config.train.lr_at_128 for job in jobs} == {5e-4, 1e-3, 2e-3}
        assert len({(j.config.model.n_layers, j.config.model.d_model) for j in jobs}) == 2
        assert {job.config.seed for job in jobs} == {0, 1}
        assert len({(j.config.model.d_model, j.config.train.lr_at_128, j.config.seed) for j in jobs}) == len(jobs) == 12
        assert {job.config.train.budget_flops for job in jobs} == {2e10}


def losses(made: Grid, best_rung: int):
    return lambda config: abs(made.ladder.index(config.model) - best_rung) + 1.0


@pytest.mark.parametrize(("best", "added"), [(0, -1), (5, 1), (3, 0)])
def test_a_best_run_at_an_end_adds_one_rung_there(best, added):
    made = grid()
    middle = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in (2, 3, 4)]
    longer = made.extended(middle, losses(made, best))
    assert [made.rung(job) for job in longer] == {-1: [1, 2, 3, 4], 1: [2, 3, 4, 5], 0: [2, 3, 4]}[added]


def test_the_ladder_ends_somewhere():
    made = grid()
    all_rungs = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in range(len(SHAPES))]
    for best in (0, 5):
        assert made.extended(all_rungs, losses(made, best)) == all_rungs


def test_seeds_and_controls_are_at_the_best_shape():
    made = grid("study.grid.seeds=3")
    best = {(n, b): made.job(made.methods[n], 2, b, 0, 7e-4) for n in made.methods for b in made.budgets}
    seeds, controls = made.seeds(best), made.controls(best)
    assert len(seeds) == 2 * 4 and {job.config.seed for job in seeds} == {1, 2}
    assert {job.config.method.name for job in controls} == {"mod_random"} and len(controls) == 3
    for job in (*seeds, *controls):
        assert made.rung(job) == 2 and job.config.train.lr_at_128 == 7e-4
    assert {job.config.train.budget_flops for job in controls} == {2e10}
    assert all((job.config.train.snapshots > 0) == (job.flops == 8e10) for job in seeds)


def test_diverged_runs_are_never_the_best():
    made = grid()
    jobs = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in (1, 2)]
    assert best_of(jobs, lambda config: None if made.ladder.index(config.model) == 1 else 9.0) is jobs[1]
    with pytest.raises(UserError, match="diverged"):
        best_of(jobs, lambda config: None)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("study.grid.budgets=[]", "study.grid.budgets must be given"),
        ("study.grid.budgets=[-1e10]", "study.grid.budgets"),
        ("study.grid.sizes=2", "study.grid.sizes=2"),
        ("study.grid.seeds=0", "study.grid.seeds=0"),
        ("study.grid.shapes=[[2,16,1],[2,24,1]]", "three shapes"),
        ("study.grid.shapes=[[2,16],[2,24],[2,32]]", "three shapes"),
        ("study.grid.methods=[mod,dense]", "must begin with dense"),
        ("study.grid.controls=[[moe,mod_random]]", "study.grid.controls"),
        ("study.grid.control_budget=3e10", "control_budget"),
        ("study.grid.tokens_per_param=0", "tokens_per_param"),
        ("study.grid.minutes=-1", "minutes"),
        ("study.grid.rates=[0,1]", "study.grid.rates"),
        ("study.grid.budgets=[.nan]", "study.grid.budgets"),
        ("study.grid.budgets=[.inf]", "study.grid.budgets"),
        ("study.grid.budgets=[2e10,2e10]", "twice"),
        ("study.grid.methods=[dense,dense]", "twice"),
        ("study.grid.controls=[[mod,nonsense]]", "nonsense"),
        ("study.name=../x", "study.name"),
        ("study.grid.methods=[dense,moe]", "study.grid.shapes holds [2, 20, 2]"),
        ("study.grid.shapes=[[2,16,1],[2,30,4],[2,32,2]]", "study.grid.shapes holds [2, 30, 4]"),
    ],
)
def test_values_that_cannot_work_are_named(override, told):
    more = ["study.grid.controls=[]", "study.grid.shapes=[[2,16,1],[2,20,2],[2,32,2]]"] if "moe]" in override else []
    with pytest.raises(UserError, match=re.escape(told)):
        grid(override, *more)


def sweep(made: Grid, best: float, multiples=(0.5, 1, 2, 4), seeds=1):
    """Jobs at two sizes, and losses on parabolas in log lr with one minimum and two levels."""
    jobs = [
        made.job(made.methods["dense"], rung, 2e10, seed, 1e-3 * m)
        for rung in (1, 3) for m in multiples for seed in range(seeds)
    ]  # fmt: skip
    loss = {
        id(job.config): 2.0 + made.rung(job) / 10 + 0.05 * math.log(job.config.train.lr_at_128 / best) ** 2
        for job in jobs
    }
    return jobs, lambda config: loss[id(config)]


def test_the_learning_rate_is_the_minimum_of_the_parabola():
    jobs, loss = sweep(grid(), best=1.7e-3)
    rule = settle(jobs, loss, 1e-3)
    assert (rule.status, rule.lr_at_128) == ("fitted", pytest.approx(1.7e-3, rel=0.01))
    assert len(rule.tried) == 8


@pytest.mark.parametrize(("best", "settled"), [(1e-5, 5e-4), (1.0, 4e-3)])
def test_a_minimum_beyond_what_was_tried_is_taken_at_the_edge_and_said(best, settled):
    jobs, loss = sweep(grid(), best=best)
    rule = settle(jobs, loss, 1e-3)
    assert (rule.status, rule.lr_at_128) == ("edge", pytest.approx(settled))


def test_too_few_rates_leave_the_given_one_and_diverged_runs_do_not_count():
    jobs, loss = sweep(grid(), best=1e-3, multiples=(1, 2))
    assert settle(jobs, loss, 3e-3).status == "given" and settle(jobs, loss, 3e-3).lr_at_128 == 3e-3
    jobs, loss = sweep(grid(), best=1e-3)
    rule = settle(jobs, lambda c: None if c.train.lr_at_128 == 4e-3 else loss(c), 3e-3)
    assert (rule.status, rule.lr_at_128) == ("fitted", pytest.approx(1e-3, rel=0.01))
    assert sum(each.val_loss_nats is None for each in rule.tried) == 2


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("multiple", [0.5, 1, 2, 4])
@pytest.mark.parametrize("rung", [1, 3])
def test_one_run_far_off_does_not_settle_the_rate(rung, multiple, seed):
    made = grid()
    jobs, loss = sweep(made, best=1.7e-3, seeds=2)
    off = (rung, 1e-3 * multiple, seed)
    rule = settle(
        jobs,
        lambda c: loss(c) + 0.5 * ((made.ladder.index(c.model), c.train.lr_at_128, c.seed) == off),
        1e-3,
    )
    assert rule.status == "fitted" and rule.lr_at_128 == pytest.approx(1.7e-3, rel=0.15)


def test_a_rate_at_which_a_run_diverged_is_out_whatever_the_others_reached():
    made = grid()
    jobs, loss = sweep(made, best=8e-3, seeds=2)
    lost = (3, 4e-3, 1)
    rule = settle(
        jobs, lambda c: None if (made.ladder.index(c.model), c.train.lr_at_128, c.seed) == lost else loss(c), 1e-3
    )
    assert (rule.status, rule.lr_at_128) == ("edge", 2e-3)


@pytest.mark.parametrize(
    ("diverged", "settled"), [({2e-3, 4e-3}, (1e-3, "edge")), ({1e-3, 2e-3, 4e-3}, (5e-4, "edge"))]
)
def test_where_too_few_rates_are_left_for_a_parabola_the_best_of_them_is_taken(diverged, settled):
    jobs, loss = sweep(grid(), best=8e-3, seeds=2)
    rule = settle(jobs, lambda c: None if c.train.lr_at_128 in diverged else loss(c), 3e-3)
    assert (rule.lr_at_128, rule.status) == settled
    everywhere = settle(jobs, lambda c: None if c.seed == 1 else loss(c), 3e-3)
    assert (everywhere.lr_at_128, everywhere.status) == (3e-3, "given")


def test_what_lies_above_a_divergence_is_out_too():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.60, 1e-3: 1.50, 2e-3: None, 4e-3: 1.52}
    rule = settle(jobs, lambda c: losses[c.train.lr_at_128], 3e-3)
    assert (rule.lr_at_128, rule.status) == (1e-3, "edge")


def test_a_slope_down_to_the_best_rate_is_part_of_the_parabola():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.9, 1e-3: 1.5, 2e-3: 1.6, 4e-3: 2.0}
    rule = settle(jobs, lambda c: losses[c.train.lr_at_128], 3e-3)
    assert rule.status == "fitted" and 1e-3 < rule.lr_at_128 < 1.6e-3


def test_a_cliff_is_no_part_of_the_parabola():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.70, 1e-3: 1.55, 2e-3: 1.45, 4e-3: 3.0}
    rule = settle(jobs, lambda c: losses[c.train.lr_at_128], 1e-3)
    assert (rule.lr_at_128, rule.status) == (2e-3, "edge")


@pytest.mark.parametrize(
    ("each_size", "settled"),
    [
        ([(1.60, 1.42, 1.69, 1.44)] * 2, (2e-3, "tried")),
        ([(1.50, 1.60, 1.62, 1.55)] * 2, (1e-3, "edge")),
        ([(1.553, 1.473, 1.495, 1.499), (1.754, 1.679, 1.961, 1.788)], (2.56e-3, "fitted")),  # MoE's, once: 1.961
    ],
)
def test_a_parabola_that_opens_downwards_leaves_the_best_rate_tried(each_size, settled):
    jobs, _ = sweep(grid(), best=1e-3, multiples=(1, 2, 4, 8))
    losses = dict(zip([id(job.config) for job in jobs], [*each_size[0], *each_size[1]], strict=True))
    rule = settle(jobs, lambda config: losses[id(config)], 5e-3)
    assert (rule.lr_at_128, rule.status) == settled
