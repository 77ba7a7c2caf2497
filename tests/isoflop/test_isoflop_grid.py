"""The runs of an isoFLOP study and their learning rates."""

from __future__ import annotations

import math
import re

import pytest

from bench.config.compose import configure
from bench.errors import UserError
from bench.isoflop.run.grid import Grid, best_of
from bench.isoflop.run.learning_rates import choose_learning_rate

SHAPES = [[2, 16, 1], [2, 24, 1], [2, 32, 2], [2, 48, 2], [4, 48, 2], [4, 64, 2]]


def grid(*overrides: str) -> Grid:
    words = ["+study=isoflop_cpu", f"study.grid.shapes={SHAPES}", "study.grid.budgets=[2e10,8e10]",
             "study.grid.methods=[dense,mod]", "study.grid.controls=[[mod,mod_random]]", "study.grid.sizes=3",
             "study.grid.control_budget=null", "study.grid.tokens_per_param=10", "model.context=64"]  # fmt: skip
    return Grid(configure([*words, *overrides]))


def test_window_is_centred_at_the_requested_tokens_per_parameter():
    made = grid()
    for budget in made.budgets:
        window = made.window("dense", budget)
        plans = [made.job(made.methods["dense"], rung, budget, 0, 1e-3).plan for rung in range(len(SHAPES))]
        off = [abs(math.log(p.tokens / p.count.params_active / 10)) for p in plans]
        assert len(window) == 3 and off.index(min(off)) in window


def test_window_is_higher_for_larger_budgets_and_cheaper_tokens():
    made = grid()
    small, large = made.budgets
    assert made.window("dense", small).start <= made.window("dense", large).start
    for budget in made.budgets:
        assert made.window("dense", budget).start <= made.window("mod", budget).start


def test_sizes_spend_their_budget_to_within_a_step():
    made = grid()
    for (_, budget), jobs in made.sizes({"dense": 1e-3, "mod": 1e-3}).items():
        for job in jobs:
            assert abs(job.plan.steps * job.plan.step_flops - budget) <= job.plan.step_flops
            assert job.flops == budget


def test_learning_rates_sweep_two_sizes_and_seeds_of_the_smallest_budget():
    made = grid("train.lr_at_128=1e-3", "study.grid.rates=[0.5,1,2]")
    for jobs in made.learning_rates().values():
        assert {job.config.train.lr_at_128 for job in jobs} == {5e-4, 1e-3, 2e-3}
        assert len({(j.config.model.n_layers, j.config.model.d_model) for j in jobs}) == 2
        assert {job.config.seed for job in jobs} == {0, 1}
        assert len({(j.config.model.d_model, j.config.train.lr_at_128, j.config.seed) for j in jobs}) == len(jobs) == 12
        assert {job.config.train.budget_flops for job in jobs} == {2e10}


def losses(made: Grid, best_rung: int):
    return lambda config: abs(made.ladder.index(config.model) - best_rung) + 1.0


@pytest.mark.parametrize(("best", "added"), [(0, -1), (5, 1), (3, 0)])
def test_extended_adds_a_rung_where_the_best_run_is_at_the_edge(best, added):
    made = grid()
    middle = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in (2, 3, 4)]
    longer = made.extended(middle, losses(made, best))
    assert [made.rung(job) for job in longer] == {-1: [1, 2, 3, 4], 1: [2, 3, 4, 5], 0: [2, 3, 4]}[added]


def test_extended_stops_at_the_ends_of_the_ladder():
    made = grid()
    all_rungs = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in range(len(SHAPES))]
    for best in (0, 5):
        assert made.extended(all_rungs, losses(made, best)) == all_rungs


def test_seeds_and_ablations_have_the_best_shape():
    made = grid("study.grid.seeds=3")
    best = {(n, b): made.job(made.methods[n], 2, b, 0, 7e-4) for n in made.methods for b in made.budgets}
    seeds, controls = made.seeds(best), made.controls(best)
    assert len(seeds) == 2 * 4 and {job.config.seed for job in seeds} == {1, 2}
    assert {job.config.method.name for job in controls} == {"mod_random"} and len(controls) == 3
    for job in (*seeds, *controls):
        assert made.rung(job) == 2 and job.config.train.lr_at_128 == 7e-4
    assert {job.config.train.budget_flops for job in controls} == {2e10}
    assert all((job.config.train.snapshots > 0) == (job.flops == 8e10) for job in seeds)


def test_best_of_ignores_diverged_runs():
    made = grid()
    jobs = [made.job(made.methods["dense"], rung, 2e10, 0, 1e-3) for rung in (1, 2)]
    assert best_of(jobs, lambda config: None if made.ladder.index(config.model) == 1 else 9.0) is jobs[1]
    with pytest.raises(UserError, match="diverged"):
        best_of(jobs, lambda config: None)


@pytest.mark.parametrize(
    ("override", "message"),
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
def test_grid_bad_value_is_named(override, message):
    more = ["study.grid.controls=[]", "study.grid.shapes=[[2,16,1],[2,20,2],[2,32,2]]"] if "moe]" in override else []
    with pytest.raises(UserError, match=re.escape(message)):
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


def test_learning_rate_is_the_minimum_of_the_parabola():
    jobs, loss = sweep(grid(), best=1.7e-3)
    rule = choose_learning_rate(jobs, loss, 1e-3)
    assert (rule.status, rule.lr_at_128) == ("fitted", pytest.approx(1.7e-3, rel=0.01))
    assert len(rule.tried) == 8


@pytest.mark.parametrize(("best", "chosen"), [(1e-5, 5e-4), (1.0, 4e-3)])
def test_learning_rate_beyond_the_sweep_is_the_edge_and_marked(best, chosen):
    jobs, loss = sweep(grid(), best=best)
    rule = choose_learning_rate(jobs, loss, 1e-3)
    assert (rule.status, rule.lr_at_128) == ("edge", pytest.approx(chosen))


def test_learning_rate_with_too_few_rates_is_the_given_one():
    jobs, loss = sweep(grid(), best=1e-3, multiples=(1, 2))
    assert (
        choose_learning_rate(jobs, loss, 3e-3).status == "given"
        and choose_learning_rate(jobs, loss, 3e-3).lr_at_128 == 3e-3
    )
    jobs, loss = sweep(grid(), best=1e-3)
    rule = choose_learning_rate(jobs, lambda c: None if c.train.lr_at_128 == 4e-3 else loss(c), 3e-3)
    assert (rule.status, rule.lr_at_128) == ("fitted", pytest.approx(1e-3, rel=0.01))
    assert sum(each.val_loss_nats is None for each in rule.tried) == 2


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("multiple", [0.5, 1, 2, 4])
@pytest.mark.parametrize("rung", [1, 3])
def test_learning_rate_is_robust_to_one_outlier(rung, multiple, seed):
    made = grid()
    jobs, loss = sweep(made, best=1.7e-3, seeds=2)
    off = (rung, 1e-3 * multiple, seed)
    rule = choose_learning_rate(
        jobs,
        lambda c: loss(c) + 0.5 * ((made.ladder.index(c.model), c.train.lr_at_128, c.seed) == off),
        1e-3,
    )
    assert rule.status == "fitted" and rule.lr_at_128 == pytest.approx(1.7e-3, rel=0.15)


def test_learning_rate_excludes_a_rate_where_one_run_diverged():
    made = grid()
    jobs, loss = sweep(made, best=8e-3, seeds=2)
    lost = (3, 4e-3, 1)
    rule = choose_learning_rate(
        jobs, lambda c: None if (made.ladder.index(c.model), c.train.lr_at_128, c.seed) == lost else loss(c), 1e-3
    )
    assert (rule.status, rule.lr_at_128) == ("edge", 2e-3)


@pytest.mark.parametrize(("diverged", "chosen"), [({2e-3, 4e-3}, (1e-3, "edge")), ({1e-3, 2e-3, 4e-3}, (5e-4, "edge"))])
def test_learning_rate_with_too_few_stable_rates_is_the_best_of_them(diverged, chosen):
    jobs, loss = sweep(grid(), best=8e-3, seeds=2)
    rule = choose_learning_rate(jobs, lambda c: None if c.train.lr_at_128 in diverged else loss(c), 3e-3)
    assert (rule.lr_at_128, rule.status) == chosen
    everywhere = choose_learning_rate(jobs, lambda c: None if c.seed == 1 else loss(c), 3e-3)
    assert (everywhere.lr_at_128, everywhere.status) == (3e-3, "given")


def test_learning_rate_excludes_rates_above_a_divergence():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.60, 1e-3: 1.50, 2e-3: None, 4e-3: 1.52}
    rule = choose_learning_rate(jobs, lambda c: losses[c.train.lr_at_128], 3e-3)
    assert (rule.lr_at_128, rule.status) == (1e-3, "edge")


def test_learning_rate_keeps_the_slope_below_the_best_rate():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.9, 1e-3: 1.5, 2e-3: 1.6, 4e-3: 2.0}
    rule = choose_learning_rate(jobs, lambda c: losses[c.train.lr_at_128], 3e-3)
    assert rule.status == "fitted" and 1e-3 < rule.lr_at_128 < 1.6e-3


def test_learning_rate_excludes_rates_beyond_a_cliff():
    jobs, _ = sweep(grid(), best=1e-3, seeds=2)
    losses = {5e-4: 1.70, 1e-3: 1.55, 2e-3: 1.45, 4e-3: 3.0}
    rule = choose_learning_rate(jobs, lambda c: losses[c.train.lr_at_128], 1e-3)
    assert (rule.lr_at_128, rule.status) == (2e-3, "edge")


@pytest.mark.parametrize(
    ("each_size", "chosen"),
    [
        ([(1.60, 1.42, 1.69, 1.44)] * 2, (2e-3, "tried")),
        ([(1.50, 1.60, 1.62, 1.55)] * 2, (1e-3, "edge")),
        ([(1.553, 1.473, 1.495, 1.499), (1.754, 1.679, 1.961, 1.788)], (2.56e-3, "fitted")),  # MoE's, once: 1.961
    ],
)
def test_learning_rate_of_a_concave_fit_is_the_best_rate_tried(each_size, chosen):
    jobs, _ = sweep(grid(), best=1e-3, multiples=(1, 2, 4, 8))
    losses = dict(zip([id(job.config) for job in jobs], [*each_size[0], *each_size[1]], strict=True))
    rule = choose_learning_rate(jobs, lambda config: losses[id(config)], 5e-3)
    assert (rule.lr_at_128, rule.status) == chosen
