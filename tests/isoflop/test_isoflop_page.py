"""The isoFLOP report on studies made by hand, from laws whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from isoflop_studies import (
    BUDGETS,
    best_loss,
    best_params,
    law,
    make_study,
    verdict,
)
from report_records import change_records, make_record
from scipy import stats

from bench.errors import UserError
from bench.isoflop.analysis.contracts import comparisons
from bench.isoflop.analysis.differences import best_difference
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.results import read_study, title
from bench.isoflop.pages import laws
from bench.isoflop.pages.ablations import rates_table
from bench.isoflop.pages.laws import study_fits
from bench.isoflop.pages.page import write_isoflop
from bench.records.isoflop import FILE, LearningRate, Packing, Tried, load_study
from bench.records.record import Causality, Timing
from bench.report.__main__ import main
from bench.stats.verdict import Mark

FASTER = "Better loss than dense at equal training FLOPs, both at their best size."


def test_difference_at_equal_flops_covers_the_laws(tmp_path: Path):
    compared = comparisons(read_study(make_study(tmp_path / "made")))
    for flops in BUDGETS:
        value = next(c.value for c in compared if c.contract == "train_flops" and c.budget == flops)
        truth = best_loss(2 * flops) - best_loss(flops)  # the same law with twice the FLOPs at each size
        assert value is not None and value.low is not None and value.high is not None
        assert value.low <= truth + 0.001 and truth - 0.001 <= value.high
        assert value.value == pytest.approx(truth, abs=0.003)


def test_other_contracts_compare_at_denses_best_size(tmp_path: Path):
    compared = comparisons(read_study(make_study(tmp_path / "made", noise=1e-5)))
    for contract in ("forward_flops", "active_params", "total_params"):
        value = next(c.value for c in compared if c.contract == contract and c.budget == BUDGETS[0])
        n = best_params(BUDGETS[0])
        truth = law(n, 2 * BUDGETS[0] / 6 / n) - law(n, BUDGETS[0] / 6 / n)
        assert value is not None and value.value == pytest.approx(truth, abs=0.002)


def test_iso_loss_is_where_the_laws_meet(tmp_path: Path):
    found = {
        p.budget: p for p in iso_losses(read_study(make_study(tmp_path / "made", better=1.05, noise=1e-6, sizes=9)))
    }
    flops = BUDGETS[0]
    sizes = np.geomspace(best_params(flops) / 2.5, best_params(flops), 4000)
    reaching = sizes[law(sizes, 1.05 * flops / 6 / sizes) <= best_loss(flops)][0]
    ratio = found[flops].forward_flops
    assert ratio is not None and ratio.value == pytest.approx(reaching / best_params(flops), rel=0.05)
    time = found[flops].step_time
    assert time is not None and time.value == pytest.approx(0.8 * ratio.value, rel=0.03)


def test_iso_loss_of_a_worse_method_is_reached_at_no_size(tmp_path: Path):
    for parity in iso_losses(read_study(make_study(tmp_path / "made", better=0.6))):
        assert parity.forward_flops is None and "no size" in parity.why


def test_iso_loss_of_a_far_better_method_is_at_the_smallest_size(tmp_path: Path):
    for parity in iso_losses(read_study(make_study(tmp_path / "made", better=4.0))):
        assert parity.forward_flops is None and "smallest size" in parity.why


@pytest.mark.parametrize(
    ("better", "expected"), [(2.0, Mark.SUPPORTED), (0.5, Mark.CONTRADICTED), (1.0, Mark.EQUIVALENT)]
)
def test_verdicts_follow_the_intervals(tmp_path: Path, better, expected):
    assert verdict(make_study(tmp_path / "made", better=better, noise=0.002, seeded=True), FASTER) == expected


def test_loss_intervals_cover_the_truth_at_their_nominal_rate(tmp_path: Path):
    held = []
    for seed in range(12):
        found = comparisons(read_study(make_study(tmp_path / str(seed), better=1.0, noise=0.002, seed=seed)))
        values = [each.value for each in found if each.contract == "train_flops"]
        held += [value.low <= 0 <= value.high for value in values]
    assert len(held) == 24 and sum(held) >= 20


def test_seed_differences_pool_the_spread_of_the_budget(tmp_path: Path):
    folder = make_study(tmp_path / "made", better=1.1, noise=0.002)
    write_isoflop(folder, tmp_path / "reports")
    table = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "seeds.csv")
    runs = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "runs.csv")
    for flops in BUDGETS:
        own = runs[runs["budget"] == flops]
        repeated = {
            method: cells["loss"].to_numpy()
            for (method, _), cells in own.groupby(["method", "n_layers"])
            if len(cells) == 3
        }
        dense, mod = repeated["dense"], repeated["mod"]
        row = table[(table["method"] == "mod") & (table["budget"] == flops)].iloc[0]
        assert row["minus_dense"] == pytest.approx(mod[1:].mean() - dense[1:].mean())  # seed 0 chose the shape
        assert row["every_seed"] == pytest.approx(mod.mean() - dense.mean())
        pooled = np.sqrt((dense.var(ddof=1) + mod.var(ddof=1)) / 2)  # 2 degrees of freedom each
        half = 2.776445 * pooled  # t of 4 degrees of freedom; no documents in these records
        assert row["minus_dense_high"] - row["minus_dense"] == pytest.approx(half, rel=1e-5)
        assert row["every_seed_high"] - row["every_seed"] == pytest.approx(half * np.sqrt(2 / 3), rel=1e-5)


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples of the laws, which are not what is asked about."""
    monkeypatch.setattr(laws, "_BOOTSTRAPS", 100)


def test_lucky_first_seed_chooses_a_shape_and_decides_nothing(tmp_path: Path, quick):
    folder = make_study(tmp_path / "made", better=1.0, noise=0.002)

    def lucky(record):
        record.quality.val_loss_nats -= 0.1

    change_records(folder, "mod-*-2-0", lucky)  # seed 0 of the shape in the middle
    for flops in BUDGETS:
        found = best_difference(read_study(folder), "mod", "dense", flops)
        every = best_difference(read_study(folder), "mod", "dense", flops, all_seeds=True)
        assert found.low < 0 < found.high and every.value < found.value - 0.02
    text = write_isoflop(folder, tmp_path / "reports").with_name("report.md").read_text(encoding="utf-8")
    assert "not used for model selection" in text and "flatters it" in text


def test_shape_with_only_the_selection_seed_has_no_interval(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    study = load_study(folder / FILE)
    study.stages.seeds = [run for run in study.stages.seeds if not run.startswith("mod")]
    study.save(folder / FILE)
    found = best_difference(read_study(folder), "mod", "dense", BUDGETS[0])
    every = best_difference(read_study(folder), "mod", "dense", BUDGETS[0], all_seeds=True)
    assert (found.low, found.high) == (None, None) and found.value == every.value and every.low is not None


def timed_by_root(folder: Path, spread: float, slower: float = 1.3) -> None:
    """Steps that take as long as the root of the size, mod's `slower` times that; medians known to within `spread`."""
    study = load_study(folder / FILE)
    for timed in study.timings:
        params = timed.step_flops / 6 / timed.step_tokens
        median = np.sqrt(params) * 1e-5 * (slower if timed.method == "mod" else 1.0)
        timed.step_seconds = Timing(median=median, low=median / (1 + spread), high=median * (1 + spread), samples=8)
    study.save(folder / FILE)


def in_equal_time(folder: Path):
    found = comparisons(read_study(folder))
    return next(c.value for c in found if (c.contract, c.budget) == ("wall_clock", BUDGETS[-1]))


def test_equal_time_intervals_cover_the_truth_at_nominal_rate(tmp_path: Path):
    """What is true of sizes that are FLOP-optimal, on the line between the two budgets."""
    ends = [
        (np.log(flops / np.sqrt(best_params(1.5 * flops)) * 1.3), np.log(best_loss(1.5 * flops))) for flops in BUDGETS
    ]
    at = np.log(BUDGETS[1] / np.sqrt(best_params(BUDGETS[1])))
    assert ends[0][0] < at < ends[1][0]
    truth = np.exp(np.interp(at, *np.transpose(ends))) - best_loss(BUDGETS[1])
    held = []
    for seed in range(20):
        folder = make_study(tmp_path / str(seed), better=1.5, noise=0.002, seed=seed, sizes=7)
        timed_by_root(folder, 0.05)
        value = in_equal_time(folder)
        held.append(value.low <= truth <= value.high)
    assert sum(held) >= 17


def test_equal_time_intervals_widen_and_open_with_timing_noise(tmp_path: Path):
    widths = []
    for spread, slower in ((0.0, 1.3), (0.2, 1.3), (0.2, 1.05)):
        folder = make_study(tmp_path / f"{spread}-{slower}", better=1.0, noise=0.0005, sizes=7)
        timed_by_root(folder, spread, slower)
        value = in_equal_time(folder)
        widths.append(value.high - value.low)
    assert widths[1] > 1.5 * widths[0] and value.low == -np.inf and np.isfinite(value.high)


def test_curve_differences_cover_validation_documents(tmp_path: Path, quick):
    def found(folder: Path):
        results = read_study(folder)
        compared = {c.contract: c.value for c in comparisons(results) if c.budget == BUDGETS[0]}
        parity = next(p.forward_flops for p in iso_losses(results) if p.budget == BUDGETS[0])
        return compared, parity, study_fits(results).equivalents["mod"][0].times

    folder = make_study(tmp_path / "made", better=1.05, noise=1e-4, sizes=9)
    compared, parity, times = found(folder)
    tokens, off = np.full(5, 100), np.array([2.0, -1.0, 0.0, 1.0, -2.0])
    for path in folder.glob("*/record.json"):
        nats = 200.0 + off * path.parent.name.startswith("mod")
        frame = pd.DataFrame({"document": range(5), "tokens": tokens, "bytes": tokens, "nats": nats})
        frame.to_csv(path.with_name("documents.csv"), index=False)
    wider, wider_parity, wider_times = found(folder)
    moves = off / 4 / 100  # of the mean over documents of equal length, when each is left out
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.sum(moves**2))
    for contract in ("train_flops", "forward_flops", "active_params", "total_params"):
        before, after = compared[contract], wider[contract]
        assert after.value == before.value and before.high - before.low < half / 5
        assert after.high - after.low == pytest.approx(2 * half, rel=0.2)
    assert wider_parity.high - wider_parity.low > 3 * (parity.high - parity.low)
    assert wider_times.high - wider_times.low > 3 * (times.high - times.low)


@pytest.mark.parametrize(("place", "told"), [(0, "at grid edge"), (1, "near grid edge"), (3, "")])
def test_best_shape_at_the_grid_edge_is_a_bound(tmp_path: Path, quick, place, told):
    folder = make_study(tmp_path / "made", sizes=7)

    def best(record):
        record.quality.val_loss_nats = 2.0 + abs(record.model.n_layers - 2 - place)

    change_records(folder, "mod-*", best)
    text = write_isoflop(folder, tmp_path / "reports").with_name("report.md").read_text(encoding="utf-8")
    row = next(
        line
        for line in text.splitlines()
        if line.startswith(f"| MoD, {BUDGETS[0]:.0e}".replace("+", "")) and "×16" in line
    )
    assert row.split("|")[2].strip() == f"{2 + place}×16" + (f", {told}" if told else "")
    assert ("(best shape of MoD at grid edge: a bound)" in text) == (place == 0)


def test_report_describes_the_study_itself(tmp_path: Path, quick):
    folder = make_study(tmp_path / "made", better=1.0)
    study = load_study(folder / FILE)
    study.train_tokens = round(BUDGETS[1] / 6 / best_params(BUDGETS[1]) / 2)  # dense's best reads it twice, or once
    study.worker_seconds, study.training_seconds = 400.0, 300.0
    study.packings = [Packing(workers=2, threads=1, flops_per_second=5e10)]
    study.environment.threads = 2
    tries = [(4, 24, 1e-3, 1.6), (4, 24, 2e-3, 1.5), (4, 24, 4e-3, 1.4), (4, 40, 1e-3, 1.6), (4, 40, 2e-3, 1.5)]
    tried = [Tried(n_layers=n, d_model=d, lr_at_128=lr, val_loss_nats=loss) for n, d, lr, loss in tries]
    study.learning_rates = {
        "dense": LearningRate(lr_at_128=2e-3, status="fitted", tried=tried),
        "mod": LearningRate(lr_at_128=2e-3, status="tried", tried=tried),
    }
    study.save(folder / FILE)
    page = write_isoflop(folder, tmp_path / "reports")
    text = page.with_name("report.md").read_text(encoding="utf-8")
    assert "at 4e12 FLOPs Dense 2.0, MoD 2.0" in text and "at 1e12" not in text.split("Passes of the best")[1][:80]
    assert "some sessions were not recorded" in text and "% of the training pool" not in text
    assert "2 with 1 thread each 50 GFLOP/s" in text and "timed alone, on 2 threads" in text
    assert "Dense: minimum of a parabola in the log of the rate, with one level per size; MoD: best rate tried" in text
    assert "4×24: 0.004, the highest; 4×40: 0.002" in text and "another may do better" not in text
    assert "where rates were swept, learning rates" in text and "on 2 threads" in page.read_text(encoding="utf-8")
    study.learning_rates["mod"].status = "edge"
    study.save(folder / FILE)
    text = write_isoflop(folder, tmp_path / "reports").with_name("report.md").read_text(encoding="utf-8")
    assert "The learning rate of MoD is at the sweep’s edge; another may do better." in text


def test_minimum_far_below_every_run_is_rejected(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    for size, loss in enumerate((2.0, 2.02, 2.0, 2.8, 4.0)):  # a floor, then a cliff
        for path in folder.glob(f"mod-1e12-{size}-*/record.json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            content["quality"]["val_loss_nats"] = loss
            path.write_text(json.dumps(content), encoding="utf-8")
    compared = {(c.budget, c.method): c for c in comparisons(read_study(folder)) if c.contract == "train_flops"}
    assert compared[1e12, "mod"].value is None and "fit rejected" in compared[1e12, "mod"].why
    assert compared[4e12, "mod"].value is not None


def test_iso_loss_curves_show_the_cheapest_runs(tmp_path: Path):
    better = 1.2
    folder = make_study(tmp_path / "made", better=better, noise=1e-6)
    for run in folder.glob("*/record.json"):
        (run.parent / "steps.csv").write_text("step,tokens,train_flops,seconds,loss\n1,1,1,1,3\n2,2,2,2,2\n")
    write_isoflop(folder, tmp_path / "reports")
    report = (tmp_path / "reports" / "made" / "report.md").read_text(encoding="utf-8")
    best = best_params(4e12)
    sizes = np.geomspace(best / 2.5, best * 2.5, 5)
    as_good = sizes[law(sizes, better * 4e12 / 6 / sizes) <= best_loss(4e12)].min()
    assert as_good < best and f"{as_good / best:.2f}× Dense’s" in report


def test_mode_is_compared_with_its_parts_and_their_sum(tmp_path: Path, quick):
    folder = make_study(tmp_path / "made", methods=("dense", "moe", "mod", "mode"), noise=0.0005, better=1.1)
    write_isoflop(folder, tmp_path / "reports")
    table = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "mode_against_parts.csv")
    results = read_study(folder)
    best = {
        (method, flops): results.best(method, flops).query("seed > 0")["loss"].mean()
        for method in ("dense", "moe", "mod", "mode")
        for flops in BUDGETS
    }
    for row in table.itertuples():
        assert row.minus_mod == pytest.approx(best["mode", row.budget] - best["mod", row.budget])
        short = best["mode", row.budget] + best["dense", row.budget] - best["moe", row.budget] - best["mod", row.budget]
        assert row.minus_sum_of_parts == pytest.approx(short)
        assert row.minus_sum_of_parts_low < short < row.minus_sum_of_parts_high
        assert row.minus_mod_low < row.minus_mod < row.minus_mod_high


def test_intervals_beyond_the_grid_are_open(tmp_path: Path):
    folder = make_study(tmp_path / "made", noise=0.02, sizes=7, seed=3)
    write_isoflop(folder, tmp_path / "reports")
    table = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "optima.csv").query("status == 'ok'")
    report = (tmp_path / "reports" / "made" / "report.md").read_text(encoding="utf-8")
    runs = read_study(folder).sized
    beyond = 0
    for row in table.itertuples():
        own = runs[(runs["method"] == row.method) & (runs["budget"] == row.flops)]["params_total"]
        line = next(
            line
            for line in report.split("## Loss against size")[1].splitlines()
            if line.startswith(f"| {title(row.method)}, {row.flops:.0e}".replace("+", ""))
        )
        cell = line.split("|")[2]
        out = (row.params_low < own.min(), row.params_high > own.max())
        beyond += any(out)
        assert ("or more" in cell, "or less" in cell) == (out == (False, True), out == (True, False))
    assert beyond


def test_excluded_runs_are_named_and_not_used(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    losses = len(read_study(folder).runs)
    failed = folder / "mod-1e12-1-0" / "record.json"
    record = make_record("mod", 0, 0.001, run_id="mod-1e12-1-0", causality=Causality(
        max_abs_logit_change=1.0, tolerance=1e-4, passed=False), status="audit_failed")  # fmt: skip
    record.save(failed.parent / "record.json")
    (folder / "mod-1e12-3-0" / "record.json").write_text("{", encoding="utf-8")
    (folder / "dense-4e12-0-0" / "record.json").unlink()
    results = read_study(folder)
    assert len(results.runs) == losses - 3 and len(results.problems) == 3
    page = write_isoflop(folder, tmp_path / "reports").read_text(encoding="utf-8")
    for run in ("mod-1e12-1-0", "mod-1e12-3-0", "dense-4e12-0-0"):
        assert run in page


def test_method_without_readable_runs_at_a_budget_is_skipped(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    for path in folder.glob("mod-4e12-*/record.json"):
        path.unlink()
    text = write_isoflop(folder, tmp_path / "reports").with_name("report.md").read_text(encoding="utf-8")
    assert "| MoD, 1e12 |" in text and "MoD, 4e12 | 0" not in text.split("## Claims")[0]
    found = [parity for parity in iso_losses(read_study(folder)) if parity.budget == BUDGETS[1]]
    assert [parity.why for parity in found] == ["too few sizes"]


@pytest.mark.parametrize("changes", [{"budgets": BUDGETS[:1]}, {"sizes": 2}, {"methods": ("dense",)}, {"sizes": 3}])
def test_page_of_a_small_study_is_written(tmp_path: Path, changes):
    page = write_isoflop(make_study(tmp_path / "made", **changes), tmp_path / "reports").read_text(encoding="utf-8")
    assert "Every run" in page


def test_page_escapes_names(tmp_path: Path):
    folder = make_study(tmp_path / "made", name="made")
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    content["command"], content["environment"]["device_name"] = "<script>alert(1)</script>", "<img src=x>"
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")
    page = write_isoflop(folder, tmp_path / "reports").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;alert" in page


def test_rates_table_gives_regret_only_at_sizes_run_at_it(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    loss = float(read_study(folder).cell("dense", BUDGETS[0]).query("n_layers == 4 and seed == 0")["loss"].iloc[0])
    tries = [(4, 16, 1e-3, loss + 0.2), (4, 16, 2e-3, loss - 0.03), (4, 16, 4e-3, None), (4, 40, 1e-3, 1.0)]
    tried = [Tried(n_layers=n, d_model=d, lr_at_128=lr, val_loss_nats=value) for n, d, lr, value in tries]
    study = load_study(folder / FILE)
    study.learning_rates = {"dense": LearningRate(lr_at_128=1.5e-3, status="fitted", tried=tried)}
    study.save(folder / FILE)
    (row,) = rates_table(read_study(folder)).rows
    assert "4×16: +0.030" in row and not any("4×40: +" in cell for cell in row)


def test_unfinished_study_is_refused_with_the_command(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    study = load_study(folder / FILE)
    study.missing = 7
    study.save(folder / FILE)
    with pytest.raises(UserError, match="unfinished study: 7 runs are missing. Resume: python -m bench \\+study=made"):
        read_study(folder)


def test_broken_study_is_named_and_others_are_written(tmp_path: Path, capsys):
    results = tmp_path / "results"
    make_study(results / "made")
    (results / "torn").mkdir()
    (results / "torn" / FILE).write_text('{"name": "torn"', encoding="utf-8")
    assert main([str(results), "--reports", str(tmp_path / "reports")]) == 1
    said = capsys.readouterr()
    assert said.err.count("warning:") == 1 and "torn" in said.err
    assert (tmp_path / "reports" / "made" / "index.html").exists()
    with pytest.raises(UserError):
        read_study(results / "torn")
