"""Which method wins, what at an end of the sizes tells nothing, and what is said of all runs alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from isoflop_studies import BUDGETS, make_study, verdict
from report_records import change_records

from bench.isoflop.analysis.contracts import comparisons
from bench.isoflop.analysis.curves import outliers
from bench.isoflop.analysis.differences import below, best_difference
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.results import read_study, title
from bench.isoflop.pages.setup import equal_for_all, rerun
from bench.isoflop.pages.verdict import chance, verdicts, winners
from bench.records.isoflop import FILE, load_study
from bench.records.record import load_record
from bench.stats.verdict import Mark


@pytest.mark.parametrize(("better", "first", "told"), [(2.0, "mod", "Dense"), (0.5, "dense", "MoD"), (1.0, "", "none")])
def test_winner_of_each_budget_is_named_with_significant_others(tmp_path: Path, better, first, told):
    results = read_study(make_study(tmp_path / "made", better=better, noise=0.002, seeded=True))
    sentences = winners(results)
    assert len(sentences) == len(BUDGETS)
    for sentence, budget in zip(sentences, BUDGETS, strict=True):
        named = title(first) if first else ""
        assert f" FLOPs {named}" in sentence and sentence.endswith(f"Significantly different: {told}.")
        if first:
            best = results.best(first, budget)
            loss = best[best["seed"] > 0]["loss"].mean()
            assert f"{loss:.3f} nats/token ({best['n_layers'].iloc[0]}×16" in sentence


def at_place(folder: Path, place: int, loss: float) -> None:
    """Make the size at `place` of every budget MoD's best, with so much loss."""

    def to(record):
        record.quality.val_loss_nats = loss + abs(record.model.n_layers - 2 - place) + 1e-3 * record.run.seed

    change_records(folder, "mod-*", to)


@pytest.mark.parametrize(
    ("place", "loss", "expected"), [(0, 9.0, None), (6, 9.0, None), (3, 9.0, False), (0, 0.5, True), (3, 0.5, True)]
)
def test_best_shape_at_the_grid_edge_is_never_worse(tmp_path: Path, place, loss, expected):
    folder = make_study(tmp_path / "made", sizes=7, seeded=True)
    at_place(folder, place, loss)
    results = read_study(folder)
    value = best_difference(results, "mod", "dense", BUDGETS[0])
    assert value.low > 0 if loss > 5 else value.high < 0
    assert below(results, BUDGETS[0], ["mod"], ["dense"], value) is expected
    other = best_difference(results, "dense", "mod", BUDGETS[0])
    assert below(results, BUDGETS[0], ["dense"], ["mod"], other) is (None if expected is None else not expected)
    ((_, sentence),) = verdicts(results, comparisons(results))
    assert ("worse by" in sentence, "better by" in sentence) == (expected is False, expected is True)


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


def test_chance_counts_the_intervals_against_dense(tmp_path: Path):
    results = read_study(make_study(tmp_path / "made", seeded=True))
    count = 2 * len(BUDGETS)  # by curves and by best shapes
    assert f"Of {count} intervals against Dense about {count / 20:.1f} would" in chance(results, comparisons(results))
