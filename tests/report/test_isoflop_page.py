"""The isoFLOP report on studies made by hand, from laws whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import make_record

from bench.errors import UserError
from bench.isoflop import FILE, Stages, Study, Timed, save_study
from bench.record import Causality, Environment, Timing, save_record
from bench.report.__main__ import main
from bench.report.isoflop.claims import FAILS, HOLDS, OPEN, claims
from bench.report.isoflop.comparisons import comparisons
from bench.report.isoflop.page import study_fits, write_isoflop
from bench.report.isoflop.parity import parities
from bench.report.isoflop.results import read_study

E, A, B, ALPHA, BETA = 0.5, 20.0, 60.0, 0.34, 0.30
BUDGETS = (1e12, 4e12)
FASTER = "Better loss than dense at equal training FLOPs, both at their best size."


def law(params, tokens):
    return E + A / params**ALPHA + B / tokens**BETA


def best_params(flops):
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** (BETA / (ALPHA + BETA))


def best_loss(flops):
    return law(best_params(flops), flops / 6 / best_params(flops))


def make_study(
    folder: Path, better=2.0, noise=0.0005, budgets=BUDGETS, sizes=5, name="made", methods=("dense", "mod"), seed=100
):
    """A study in which mod does with its FLOPs what dense does with `better` times as many."""
    rng = np.random.default_rng(seed)
    stages = Stages()
    timings = []
    for method in methods:
        gain = better if method == "mod" else 1.0
        for flops in budgets:
            for size, params in enumerate(np.geomspace(best_params(flops) / 2.5, best_params(flops) * 2.5, sizes)):
                for run_seed in range(3 if size == sizes // 2 else 1):
                    loss = law(params, gain * flops / 6 / params) * (1 + noise * rng.standard_normal())
                    run = write_run(folder, method, flops, size, params, flops / 6 / params, run_seed, loss)
                    (stages.seeds if run_seed else stages.grid).append(run)
                timings.append(
                    Timed(
                        method=method, n_layers=2 + size, d_model=16, step_tokens=1024, step_flops=6 * params * 1024,
                        step_seconds=Timing.of([params * 1e-8 * (0.8 if method == "mod" else 1.0)] * 6),
                    )
                )  # fmt: skip
    study = Study(
        name=name, created="2026-11-24T00:00:00+00:00", git_commit="abc1234", command="python -m bench +study=made",
        environment=Environment(python="3.11", torch="2.13.0", device="cpu", device_name="a CPU", platform="Linux",
                                threads=1, packages={}),
        methods=list(methods), budgets=list(budgets), grid={}, stages=stages, timings=timings,
    )  # fmt: skip
    save_study(study, folder)
    return folder


def write_run(folder: Path, method, flops, size, params, tokens, seed, loss) -> str:
    run_id = f"{method}-{flops:.0e}-{size}-{seed}".replace("+", "")
    record = make_record(method, seed, float(loss), run_id=run_id, name="made")
    record.config["train"] = {"budget_flops": flops, "lr_at_128": 1e-3}
    record.model.n_layers, record.model.d_model = 2 + size, 16
    record.model.params_total = record.model.params_active = round(params)
    record.flops.forward_per_token, record.flops.train_total = 2 * params, flops
    record.training.tokens = round(tokens)
    (folder / run_id).mkdir(parents=True)
    save_record(record, folder / run_id)
    return run_id


def verdict(folder: Path, claim: str) -> str:
    results = read_study(folder)
    found = claims(results, comparisons(results), parities(results), study_fits(results))
    return next(c.verdict for c in found if c.text.startswith(claim))


def test_the_difference_at_equal_flops_is_the_laws_and_its_interval_holds_it(tmp_path: Path):
    compared = comparisons(read_study(make_study(tmp_path / "made")))
    for flops in BUDGETS:
        value = next(c.value for c in compared if c.contract == "train_flops" and c.budget == flops)
        truth = best_loss(2 * flops) - best_loss(flops)  # the same law with twice the FLOPs at each size
        assert value is not None and value.low is not None and value.high is not None
        assert value.low <= truth + 0.001 and truth - 0.001 <= value.high
        assert value.value == pytest.approx(truth, abs=0.003)


def test_the_other_contracts_compare_at_denses_best_size(tmp_path: Path):
    compared = comparisons(read_study(make_study(tmp_path / "made", noise=1e-5)))
    for contract in ("forward_flops", "active_params", "total_params"):
        value = next(c.value for c in compared if c.contract == contract and c.budget == BUDGETS[0])
        n = best_params(BUDGETS[0])
        truth = law(n, 2 * BUDGETS[0] / 6 / n) - law(n, BUDGETS[0] / 6 / n)
        assert value is not None and value.value == pytest.approx(truth, abs=0.002)


def test_parity_is_where_the_laws_meet(tmp_path: Path):
    found = {p.budget: p for p in parities(read_study(make_study(tmp_path / "made", better=1.05, noise=1e-6, sizes=9)))}
    flops = BUDGETS[0]
    sizes = np.geomspace(best_params(flops) / 2.5, best_params(flops), 4000)
    reaching = sizes[law(sizes, 1.05 * flops / 6 / sizes) <= best_loss(flops)][0]
    ratio = found[flops].forward_flops
    assert ratio is not None and ratio.value == pytest.approx(reaching / best_params(flops), rel=0.05)
    time = found[flops].step_time
    assert time is not None and time.value == pytest.approx(0.8 * ratio.value, rel=0.03)


def test_a_method_that_is_never_as_good_reaches_parity_nowhere(tmp_path: Path):
    for parity in parities(read_study(make_study(tmp_path / "made", better=0.6))):
        assert parity.forward_flops is None and "no size" in parity.why


def test_one_that_is_far_better_does_so_at_the_smallest_size(tmp_path: Path):
    for parity in parities(read_study(make_study(tmp_path / "made", better=4.0))):
        assert parity.forward_flops is None and "smallest size" in parity.why


@pytest.mark.parametrize(("better", "expected"), [(2.0, HOLDS), (0.5, FAILS), (1.0, OPEN)])
def test_verdicts_follow_the_intervals(tmp_path: Path, better, expected):
    assert verdict(make_study(tmp_path / "made", better=better, noise=0.002), FASTER) == expected


def test_intervals_hold_the_truth_about_as_often_as_they_say(tmp_path: Path):
    held = []
    for seed in range(12):
        found = comparisons(read_study(make_study(tmp_path / str(seed), better=1.0, noise=0.002, seed=seed)))
        values = [each.value for each in found if each.contract == "train_flops"]
        held += [value.low <= 0 <= value.high for value in values]
    assert len(held) == 24 and sum(held) >= 20


def test_seed_differences_have_the_pooled_spread_of_the_budget(tmp_path: Path):
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
        assert row["minus_dense"] == pytest.approx(mod.mean() - dense.mean())
        pooled = np.sqrt((dense.var(ddof=1) + mod.var(ddof=1)) / 2)  # 2 degrees of freedom each
        half = 2.776445 * pooled * np.sqrt(2 / 3)  # t of 4 degrees of freedom; no documents in these records
        assert row["minus_dense_high"] - row["minus_dense"] == pytest.approx(half, rel=1e-5)
        assert row["fresh"] == pytest.approx(mod[1:].mean() - dense[1:].mean())


def test_a_minimum_far_below_every_run_is_no_optimum(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    for size, loss in enumerate((2.0, 2.02, 2.0, 2.8, 4.0)):  # a floor, then a cliff
        for path in folder.glob(f"mod-1e12-{size}-*/record.json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            content["quality"]["val_loss_nats"] = loss
            path.write_text(json.dumps(content), encoding="utf-8")
    compared = {(c.budget, c.method): c for c in comparisons(read_study(folder)) if c.contract == "train_flops"}
    assert compared[1e12, "mod"].value is None and "no parabola" in compared[1e12, "mod"].why
    assert compared[4e12, "mod"].value is not None


def test_cheapest_models_as_good_as_dense_are_those_of_the_runs(tmp_path: Path):
    better = 1.2
    folder = make_study(tmp_path / "made", better=better, noise=1e-6)
    for run in folder.glob("*/record.json"):
        (run.parent / "steps.csv").write_text("step,tokens,train_flops,seconds,loss\n1,1,1,1,3\n2,2,2,2,2\n")
    write_isoflop(folder, tmp_path / "reports")
    report = (tmp_path / "reports" / "made" / "report.md").read_text(encoding="utf-8")
    best = best_params(4e12)
    sizes = np.geomspace(best / 2.5, best * 2.5, 5)
    as_good = sizes[law(sizes, better * 4e12 / 6 / sizes) <= best_loss(4e12)].min()
    assert as_good < best and f"{as_good / best:.2f}× dense’s" in report


def test_mode_is_compared_with_its_parts_and_their_gains_are_summed(tmp_path: Path):
    folder = make_study(tmp_path / "made", methods=("dense", "moe", "mod", "mode"), noise=0.0005)
    write_isoflop(folder, tmp_path / "reports")
    table = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "mode_against_parts.csv")
    best = {
        (method, flops): read_study(folder).best(method, flops)["loss"].mean()
        for method in ("dense", "moe", "mod", "mode")
        for flops in BUDGETS
    }
    for row in table.itertuples():
        assert row.minus_mod == pytest.approx(best["mode", row.budget] - best["mod", row.budget])
        short = best["mode", row.budget] + best["dense", row.budget] - best["moe", row.budget] - best["mod", row.budget]
        assert row.minus_sum_of_parts == pytest.approx(short)
        assert row.minus_sum_of_parts_low < short < row.minus_sum_of_parts_high
        assert row.minus_mod_low < row.minus_mod < row.minus_mod_high


def test_intervals_that_leave_the_sizes_that_were_run_are_open(tmp_path: Path):
    folder = make_study(tmp_path / "made", noise=0.02, sizes=7, seed=3)
    write_isoflop(folder, tmp_path / "reports")
    table = pd.read_csv(tmp_path / "reports" / "made" / "tables" / "optima.csv").query("status == 'ok'")
    report = (tmp_path / "reports" / "made" / "report.md").read_text(encoding="utf-8")
    runs = read_study(folder).sized
    beyond = 0
    for row in table.itertuples():
        own = runs[(runs["method"] == row.method) & (runs["budget"] == row.flops)]["params_total"]
        line = next(
            line for line in report.splitlines() if line.startswith(f"| {row.method}, {row.flops:.0e}".replace("+", ""))
        )
        cell = line.split("|")[3]
        out = (row.params_low < own.min(), row.params_high > own.max())
        beyond += any(out)
        assert ("or more" in cell, "or less" in cell) == (out == (False, True), out == (True, False))
    assert beyond


def test_runs_that_do_not_count_are_named_and_not_used(tmp_path: Path):
    folder = make_study(tmp_path / "made")
    losses = len(read_study(folder).runs)
    failed = folder / "mod-1e12-1-0" / "record.json"
    record = make_record("mod", 0, 0.001, run_id="mod-1e12-1-0", causality=Causality(
        max_abs_logit_change=1.0, tolerance=1e-4, passed=False), status="audit_failed")  # fmt: skip
    save_record(record, failed.parent)
    (folder / "mod-1e12-3-0" / "record.json").write_text("{", encoding="utf-8")
    (folder / "dense-4e12-0-0" / "record.json").unlink()
    results = read_study(folder)
    assert len(results.runs) == losses - 3 and len(results.problems) == 3
    page = write_isoflop(folder, tmp_path / "reports").read_text(encoding="utf-8")
    for run in ("mod-1e12-1-0", "mod-1e12-3-0", "dense-4e12-0-0"):
        assert run in page


@pytest.mark.parametrize("changes", [{"budgets": BUDGETS[:1]}, {"sizes": 2}, {"methods": ("dense",)}, {"sizes": 3}])
def test_small_studies_still_make_a_page(tmp_path: Path, changes):
    page = write_isoflop(make_study(tmp_path / "made", **changes), tmp_path / "reports").read_text(encoding="utf-8")
    assert "Every run" in page


def test_names_are_escaped(tmp_path: Path):
    folder = make_study(tmp_path / "made", name="made")
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    content["command"], content["environment"]["device_name"] = "<script>alert(1)</script>", "<img src=x>"
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")
    page = write_isoflop(folder, tmp_path / "reports").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;alert" in page


def test_a_broken_study_is_said_and_the_others_are_made(tmp_path: Path, capsys):
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
