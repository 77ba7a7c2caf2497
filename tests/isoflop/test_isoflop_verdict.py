"""Which method wins, what at an end of the sizes tells nothing, and what is said of all runs alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from isoflop_studies import BUDGETS, make_study, verdict
from report_records import change_records

from bench.isoflop.analysis.curves import outliers
from bench.isoflop.analysis.differences import best_difference, pooled, within_bounds
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.rate_sweep import sweep
from bench.isoflop.analysis.results import read_study, title
from bench.isoflop.analysis.studies import questions
from bench.isoflop.analysis.verdicts import Plan, against_dense, operating_characteristic
from bench.isoflop.pages.setup import equal_for_all, rerun, terms
from bench.isoflop.pages.verdict import power_table, studies_table, verdicts, winners
from bench.records.isoflop import (
    EARLIER,
    FILE,
    BudgetDifference,
    EarlierStudies,
    LearningRate,
    StudyDifference,
    StudySummary,
    Tried,
    load_earlier,
    load_study,
)
from bench.records.record import load_record
from bench.stats.difference import Source
from bench.stats.interval import Interval
from bench.stats.pooling import pool_budgets
from bench.stats.verdict import Mark, Verdict, decide_all
from tools.keep_study import keep


@pytest.mark.parametrize(("better", "first"), [(2.0, "mod"), (0.5, "dense")])
def test_winner_of_each_budget_is_named_with_its_loss(tmp_path: Path, better, first):
    results = read_study(make_study(tmp_path / "made", better=better, noise=0.002, seeded=True))
    sentence = winners(results)
    for budget in BUDGETS:
        best = results.best(first, budget)
        loss = best[best["seed"] > 0]["loss"].mean()
        assert f"FLOPs {title(first)} ({best['n_layers'].iloc[0]}×16), {loss:.3f}" in sentence


@pytest.mark.parametrize(
    ("better", "expected"), [(2.0, Verdict.BETTER), (0.5, Verdict.WORSE), (1.0, Verdict.EQUIVALENT)]
)
def test_verdict_is_pooled_over_budgets(tmp_path: Path, better, expected):
    results = read_study(make_study(tmp_path / "made", better=better, noise=0.002, seeded=True))
    (found,) = against_dense(results)
    each = [best_difference(results, "mod", "dense", budget) for budget in BUDGETS]
    assert found.verdict == expected and found.budgets == list(BUDGETS)
    assert min(one.value for one in each) <= found.difference.value <= max(one.value for one in each)
    assert found.difference.stderr < min(one.stderr for one in each)


def test_noisy_study_is_inconclusive_and_says_what_it_could_find(tmp_path: Path):
    results = read_study(make_study(tmp_path / "made", better=1.0, noise=0.05, seeded=True))
    ((_, sentence),) = verdicts(results, against_dense(results), [])
    assert sentence.startswith("inconclusive: ") and "minimum detectable effect 0." in sentence


def at_place(folder: Path, place: int, loss: float) -> None:
    """Make the size at `place` of every budget MoD's best, with so much loss."""

    def to(record):
        record.quality.val_loss_nats = loss + abs(record.model.n_layers - 2 - place) + 1e-3 * record.run.seed

    change_records(folder, "mod-*", to)


@pytest.mark.parametrize(
    ("place", "loss", "expected"),
    [
        (0, 9.0, Verdict.INCONCLUSIVE),
        (6, 9.0, Verdict.INCONCLUSIVE),
        (3, 9.0, Verdict.WORSE),
        (0, 0.5, Verdict.BETTER),
        (3, 0.5, Verdict.BETTER),
    ],
)
def test_best_shape_at_the_grid_edge_is_never_worse(tmp_path: Path, place, loss, expected):
    folder = make_study(tmp_path / "made", sizes=7, seeded=True)
    at_place(folder, place, loss)
    results = read_study(folder)
    value = best_difference(results, "mod", "dense", BUDGETS[0])
    assert value.low > 0 if loss > 5 else value.high < 0
    (found,) = against_dense(results)
    assert found.verdict == expected and found.bounded == ["mod"] * (place in (0, 6))
    ((_, sentence),) = verdicts(results, [found], [])
    assert ("may do better" in sentence) == (place in (0, 6))


def test_bounded_sides_leave_only_the_verdicts_that_cannot_change():
    for one in Verdict:
        assert within_bounds(one, [], []) == one
        assert within_bounds(one, ["moe"], ["dense"]) == Verdict.INCONCLUSIVE
        assert within_bounds(one, ["moe"], []) == (one if one == Verdict.BETTER else Verdict.INCONCLUSIVE)
        assert within_bounds(one, [], ["dense"]) == (one if one == Verdict.WORSE else Verdict.INCONCLUSIVE)


def test_mode_worse_than_a_part_contradicts_compounding(tmp_path: Path):
    folder = make_study(tmp_path / "made", methods=("dense", "moe", "mod", "mode"), noise=0.0)
    rng = np.random.default_rng(0)
    lower = {"dense": 0.0, "moe": 0.08, "mod": 0.02, "mode": 0.05}
    dense = {path.parent.name.split("-", 1)[1]: load_record(path).quality.val_loss_nats
             for path in folder.glob("dense-*/record.json")}  # fmt: skip

    def to(record):
        own = dense[record.run.id.split("-", 1)[1]] - lower[record.method]
        record.quality.val_loss_nats = own + 0.001 * rng.standard_normal()

    change_records(folder, "*", to)
    assert verdict(folder, "Gains of depth and experts compound") == Mark.CONTRADICTED


def test_budget_without_a_dense_optimum_says_so(tmp_path: Path):
    folder = make_study(tmp_path / "made", better=4.0)

    def to(record):
        if record.config["train"]["budget_flops"] == BUDGETS[0]:
            record.quality.val_loss_nats = 3.0 - 0.1 * record.model.n_layers

    change_records(folder, "dense-*", to)
    found = [parity for parity in iso_losses(read_study(folder)) if parity.budget == BUDGETS[0]]
    assert [(parity.method, parity.forward_flops) for parity in found] == [("mod", None)]
    assert "no dense optimum" in found[0].why


def test_outlier_run_is_named(tmp_path: Path):
    folder = make_study(tmp_path / "made", noise=1e-4, sizes=9)
    assert outliers(read_study(folder)) == []

    def to(record):
        record.quality.val_loss_nats *= 1.3

    change_records(folder, "mod-1e12-4-0", to)
    (line,) = outliers(read_study(folder))
    assert "MoD at 1e12 FLOPs: a run of" in line and "30.0" in line


def test_equal_settings_come_from_the_records(tmp_path: Path):
    folder = make_study(tmp_path / "made")

    def to(record):
        depth = {"capacity": 0.125, "every": 2} if record.method == "mod" else None
        record.config |= {
            "method": {"depth": depth},
            "model": {"context": 256},
            "data": {"name": "kjv", "tokenizer": {"kind": "bytes"}},
            "train": record.config["train"] | {"batch_size": 4, "warmup": 0.05, "lr_final": 0.1},
        }

    assert equal_for_all(read_study(folder)) == ""
    change_records(folder, "*", to)
    told = equal_for_all(read_study(folder))
    assert "4 sequences of 256 tokens (bytes)" in told and "5\N{NO-BREAK SPACE}% warm-up" in told
    assert "MoD: every other block processes 12.5\N{NO-BREAK SPACE}% of the tokens." in told and "Dense:" not in told


def test_rerun_says_how_long_training_took(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    study = load_study(folder / FILE)
    assert "results_dir=out" in rerun(study) and "about" not in rerun(study)
    study.study_seconds = 6600.0
    study.save(folder / FILE)
    assert rerun(load_study(folder / FILE)).endswith("in about 110.0 min on such a machine")


@pytest.mark.parametrize("family", [1, 3])
def test_operating_characteristic_is_that_of_the_rule(family):
    """Against the rule itself on drawn studies."""
    plan = Plan(seeds=8, sds=[0.02, 0.014], degrees=10, shared=4e-6, family=family, effect=0.02)
    rng, drawn = np.random.default_rng(1), 400
    errors = np.array(plan.sds) * np.sqrt(2 / plan.seeds)
    undecided = [Interval.from_stderr(0.0, 1.0, 10)] * (family - 1)
    for effect, found in zip((0.0, -0.03), operating_characteristic(plan, (0.0, -0.03)), strict=True):
        counted = dict.fromkeys(Verdict, 0)
        for _ in range(drawn):
            values = effect + errors * rng.standard_normal(2) + np.sqrt(plan.shared) * rng.standard_normal()
            estimated = errors * np.sqrt(rng.chisquare(plan.degrees, 2) / plan.degrees)
            each = [Interval.from_stderr(v, s, plan.degrees) for v, s in zip(values, estimated, strict=True)]
            pooled = pool_budgets(each, Source(plan.shared))
            counted[decide_all([pooled, *undecided], [plan.effect] * family)[0]] += 1
        for each in Verdict:
            assert found[each] == pytest.approx(counted[each] / drawn, abs=0.07)


def test_operating_characteristic_at_the_cost_of_the_evidence_plan():
    """16 seeds at two budgets, one question: 80 % equivalent at no difference, 90 % better at 0.03 nats."""
    plan = Plan(seeds=16, sds=[0.016, 0.016], degrees=30, shared=4e-6, family=1, effect=0.014)
    equal, better = operating_characteristic(plan, (0.0, -0.03))
    assert equal[Verdict.EQUIVALENT] >= 0.8 and better[Verdict.BETTER] >= 0.9
    assert equal[Verdict.BETTER] + equal[Verdict.WORSE] <= 0.06


def test_power_table_shows_this_study_and_a_larger_one(tmp_path: Path):
    results = read_study(make_study(tmp_path / "made", better=1.0, noise=0.01, seeded=True))
    table = power_table(results, against_dense(results))
    assert [row[0].split(":")[0] for row in table.rows] == ["2 seeds, 2 budgets"] * 3 + ["16 seeds, 2 budgets"] * 3
    assert np.allclose(table.data[list(Verdict)].sum(axis=1), 1)
    better = table.data["better"].to_numpy()
    assert better[3] < 0.05 < better[2] < better[5]


def swept(folder: Path, spread: float, status: str = "fitted") -> None:
    """A sweep of MoD's rate about 2e-3, whose runs scatter by `spread` about a parabola of bend 0.1."""
    rng, study = np.random.default_rng(0), load_study(folder / FILE)
    tried = [
        Tried(n_layers=4, d_model=16, lr_at_128=rate, seed=seed,
              val_loss_nats=2 + 0.1 * np.log(rate / 2e-3) ** 2 + spread * rng.standard_normal())
        for rate in (1e-3, 2e-3, 4e-3, 8e-3) for seed in range(4)
    ]  # fmt: skip
    study.learning_rates = {"mod": LearningRate(lr_at_128=2e-3, status=status, tried=tried)}
    study.save(folder / FILE)


def test_uncertain_learning_rate_widens_differences(tmp_path: Path):
    folder = make_study(tmp_path / "made", better=1.1, noise=0.002, seeded=True)
    without = pooled(read_study(folder), ["mod"], ["dense"])
    widths = []
    for spread in (0.001, 0.05):
        swept(folder, spread)
        widths.append(pooled(read_study(folder), ["mod"], ["dense"]).stderr)
    assert without.stderr <= widths[0] < 1.001 * without.stderr and widths[1] > 1.05 * without.stderr


def test_rate_at_the_edge_can_only_be_better(tmp_path: Path):
    for better, expected in ((0.5, Verdict.INCONCLUSIVE), (2.0, Verdict.BETTER)):
        folder = make_study(tmp_path / f"{better}", better=better, noise=0.002, seeded=True)
        swept(folder, 0.001, status="edge")
        (found,) = against_dense(read_study(folder))
        assert found.verdict == expected and found.bounded == ["mod"]


def test_error_of_the_rate_is_that_of_repeated_sweeps():
    rates, truth, found = np.repeat([1e-3, 2e-3, 4e-3, 8e-3], 4), np.log(2.5e-3), []
    for seed in range(200):
        noise = 0.01 * np.random.default_rng(seed).standard_normal(len(rates))
        losses = 2 + 0.08 * (np.log(rates) - truth) ** 2 + noise
        tried = [Tried(n_layers=4, d_model=16, lr_at_128=rate, val_loss_nats=loss)
                 for rate, loss in zip(rates, losses, strict=True)]  # fmt: skip
        found.append(sweep(tried).parabola)
    minima, errors = ([getattr(each, name) for each in found] for name in ("minimum", "stderr"))
    assert np.median(errors) == pytest.approx(np.std(minima), rel=0.15)
    lost = np.mean([(0.08 * (at - truth) ** 2) ** 2 for at in minima])
    assert np.median([each.cost.variance for each in found]) == pytest.approx(lost, rel=0.5)


def earlier(folder: Path, *differences: float, stderr: float = 0.01) -> None:
    """Earlier studies that found so much for MoD minus dense, at the first budget alone."""
    studies = [
        StudySummary(created=f"2026-11-{day}", source_commit=f"abc{day}", machine="a CPU", differences=[
            StudyDifference(method="mod", minus_dense=value, stderr=stderr, degrees=20, budgets=[
                BudgetDifference(budget=BUDGETS[0], minus_dense=value, stderr=stderr, degrees=20)])])
        for day, value in enumerate(differences, 10)
    ]  # fmt: skip
    EarlierStudies(studies=studies).save(folder / EARLIER)


def test_studies_that_disagree_widen_their_mean(tmp_path: Path):
    folder = make_study(tmp_path / "made", better=1.0, noise=0.004, seeded=True)
    assert questions(read_study(folder)) == []
    earlier(folder, 0.001, -0.002)
    (alike,) = questions(read_study(folder))
    earlier(folder, -0.104, 0.048)
    (apart,) = questions(read_study(folder))
    assert [one.study.source_commit for one in apart.studies[:2]] == ["abc10", "abc11"] and len(apart.studies) == 3
    assert alike.pooled.tau == 0 and apart.pooled.tau > 0.05 and apart.pooled.p < 1e-6
    assert apart.pooled.effect.high - apart.pooled.effect.low > 5 * (alike.pooled.effect.high - alike.pooled.effect.low)
    assert apart.budget == BUDGETS[0] and apart.pooled_at is not None
    rows = studies_table(read_study(folder), [apart]).rows
    assert [row[0] for row in rows][-2:] == ["MoD, this study", "MoD, mean of 3"] and rows[-1][-1] == "inconclusive"


def test_kept_study_is_what_its_report_pooled(tmp_path: Path):
    old, new = (make_study(tmp_path / name, better=1.3, seed=seed, seeded=True) for name, seed in (("a", 1), ("b", 2)))
    for _ in range(2):  # keeping it again changes nothing
        keep(old, new, "abc1234")
    (kept,) = load_earlier(new / EARLIER)
    (found,) = against_dense(read_study(old))
    assert kept.source_commit == "abc1234" and [each.method for each in kept.differences] == ["mod"]
    assert kept.differences[0].minus_dense == found.difference.value
    assert [each.budget for each in kept.differences[0].budgets] == list(BUDGETS)


def test_terms_leave_out_methods_that_the_study_lacks(tmp_path: Path):
    dense_moe = dict(terms(read_study(make_study(tmp_path / "made", methods=("dense", "moe")))))
    assert "MoE" in dense_moe and not {"MoD", "MoDE", "causal router"} & set(dense_moe)
