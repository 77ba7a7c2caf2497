"""Fits on laws whose parameters are known: noise, outliers, uneven grids, and points that are of no use."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.fit.__main__ import main
from bench.fit.page import table
from bench.stats.fits import fit
from bench.stats.parabolas import fit_method
from bench.stats.points import check_points, read_points

LAW = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # Hoffmann et al. 2022, table A3 (approach 3)
EXPONENT = LAW["beta"] / (LAW["alpha"] + LAW["beta"])
BUDGETS = (1e18, 3e18, 1e19, 3e19, 1e20)


def _loss(params, tokens):
    return LAW["E"] + LAW["A"] / params ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]


def _best(flops):
    ratio = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])
    return ratio ** (1 / (LAW["alpha"] + LAW["beta"])) * (flops / 6) ** EXPONENT


def _points(noise=0.0, seed=0, sizes=7, seeds=1, span=8.0, budgets=BUDGETS, method="dense", better=1.0):
    """A grid around the optimum; `better`: the method does with its FLOPs what dense does with as many times more."""
    rng = np.random.default_rng(seed)
    rows = []
    for flops in budgets:
        for params in np.geomspace(_best(flops * better) / span**0.5, _best(flops * better) * span**0.5, sizes):
            for _ in range(seeds):
                loss = _loss(params, flops * better / (6 * params)) * (1 + noise * rng.standard_normal())
                rows.append({"method": method, "flops": flops, "loss": loss, "params": params})
    return pd.DataFrame(rows)


def test_a_law_without_noise_is_found():
    fits = fit(check_points(_points(sizes=9, span=3.0), "x"), bootstraps=0)
    own, law = fits.optima["dense"], fits.parametric["dense"]
    assert [optimum.status for optimum in own.optima] == ["ok"] * 5
    assert own.params_exponent.value == pytest.approx(EXPONENT, abs=0.002)
    assert own.tokens_exponent.value == pytest.approx(1 - EXPONENT, abs=0.002)
    for optimum, flops in zip(own.optima, BUDGETS, strict=True):
        assert optimum.params.value == pytest.approx(_best(flops), rel=0.03)  # a parabola is not quite the law
        assert optimum.params.value * optimum.tokens.value * 6 == pytest.approx(flops, rel=1e-6)
    for name, value in LAW.items():
        assert getattr(law, name).value == pytest.approx(value, rel=1e-3)
    assert law.params_exponent.value == pytest.approx(EXPONENT, rel=1e-3)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held, widths, values = 0, [], []
    for seed in range(100):
        points = check_points(_points(noise=0.003, seed=seed, seeds=2), "x")
        own = fit_method(points.of("dense"), 300, np.random.default_rng(seed)).params_exponent
        held += own.low <= EXPONENT <= own.high
        widths.append(own.high - own.low)
        values.append(own.value)
    low, high = np.percentile(values, [2.5, 97.5])
    assert held >= 90
    assert np.median(widths) <= 2 * (high - low)


def test_the_parametric_interval_holds_the_truth_and_outliers_do_not_move_it():
    frame = _points(noise=0.003, seeds=3)
    frame.loc[::17, "loss"] *= 1.1  # a run in seventeen went wrong
    law = fit(check_points(frame, "x"), bootstraps=100).parametric["dense"]
    assert law.params_exponent.low <= EXPONENT <= law.params_exponent.high
    assert law.E.low <= LAW["E"] <= law.E.high
    assert law.params_exponent.high - law.params_exponent.low < 0.1


@pytest.mark.parametrize("seeds", [2, 3])
def test_runs_that_went_wrong_are_named_and_leave_the_law_its_interval(seeds):
    clean, frame = _points(noise=0.003, seeds=seeds), _points(noise=0.003, seeds=seeds)
    wrong = frame.index[::17]
    frame.loc[wrong, "loss"] *= 1.1  # a run in seventeen
    fits = fit(check_points(frame, "x"), bootstraps=200)
    own = fits.optima["dense"]
    found = sorted(outlier.loss for optimum in own.optima for outlier in optimum.outliers)
    assert found == pytest.approx(sorted(frame.loc[wrong, "loss"]))
    assert own.params_exponent.low <= EXPONENT <= own.params_exponent.high
    undisturbed = fit_method(check_points(clean, "x").of("dense"), 200, np.random.default_rng(0)).params_exponent
    assert own.params_exponent.high - own.params_exponent.low < 1.5 * (undisturbed.high - undisturbed.low)
    named = " ".join(note for note in fits.notes if "left out of the parabola" in note)
    assert all(f"whose loss of {loss:.4g} is" in named for loss in frame.loc[wrong, "loss"])
    assert sum(len(o["outliers"]) for o in fits.plain()["methods"]["dense"]["optima"]) == len(wrong)


def test_noise_and_losses_that_are_no_parabola_have_no_outliers():
    frames = [_points(noise=0.003, seed=seed, seeds=seed % 3 + 1) for seed in range(30)]
    frames += [_floor_then_cliff(_points(noise=0.001)), _points(span=200.0), _points(noise=0.02, seeds=2)]
    for frame in frames:
        own = fit_method(check_points(frame, "x").of("dense"), 0, np.random.default_rng(0))
        assert not any(optimum.outliers for optimum in own.optima)


def test_ends_of_dense_equivalent_compute_beyond_denses_optima_are_marked():
    frame = pd.concat([_points(noise=0.01, seeds=2), _points(noise=0.01, seed=1, seeds=2, method="mod", better=3.0)])
    fits = fit(check_points(frame, "x"), bootstraps=300)
    first, last = BUDGETS[0], BUDGETS[-1]
    for each, plain in zip(fits.equivalents["mod"], fits.plain()["methods"]["mod"]["dense_equivalent"], strict=True):
        beyond = [not first <= end * each.flops <= last for end in (each.times.low, each.times.high)]
        assert [plain["low_extrapolated"], plain["high_extrapolated"]] == beyond
        assert [np.isinf(each.measured.low), np.isinf(each.measured.high)] == beyond
    told = [each.warning for each in fits.equivalents["mod"]]
    assert told == ["", "", "", "the upper end is an extrapolation", "an extrapolation"]
    assert "(the upper end is an extrapolation)" in table(fits)


def test_dense_equivalent_compute_of_a_method_that_is_twice_as_good():
    frame = pd.concat([_points(noise=0.001, seeds=3), _points(noise=0.001, seed=1, seeds=3, method="mod", better=2.0)])
    found = fit(check_points(frame, "x"), bootstraps=200).equivalents["mod"]
    assert [each.extrapolated for each in found] == [False] * 4 + [True]
    for each in found[:4]:
        assert each.times.low < each.times.value < each.times.high
        assert each.times.value == pytest.approx(2.0, rel=0.15)
    assert sum(each.times.low <= 2.0 <= each.times.high for each in found) >= 4


def test_what_gives_no_optimum_is_kept_with_its_reason():
    frame = _points()
    middle = frame["flops"] == 1e19
    frame.loc[middle, "loss"] = 6.0 - frame.loc[middle, "loss"]  # opens downwards
    right = (frame["flops"] == 1e20) & (frame["params"] > _best(1e20))
    few = (frame["flops"] == 1e18) & (frame["params"] > frame.loc[frame["flops"] == 1e18, "params"].nsmallest(2).max())
    fits = fit(check_points(frame[~right & ~few], "x"), bootstraps=0)
    assert [o.status for o in fits.optima["dense"].optima] == ["too few sizes", "ok", "concave", "ok", "edge"]
    assert sum("gives no optimum" in note for note in fits.notes) == 3


def test_one_budget_still_gives_its_optimum():
    fits = fit(check_points(_points(budgets=(1e19,)), "x"), bootstraps=0)
    assert fits.optima["dense"].optima[0].status == "ok"
    assert fits.optima["dense"].params_exponent is None and fits.parametric["dense"] is None
    assert any("needs two budgets" in note for note in fits.notes)


def test_budgets_are_told_apart_by_one_percent_and_never_rounded():
    frame = _points(budgets=(1e18, 1.03e18), sizes=4)
    frame.loc[0, "flops"] *= 1.002  # a run ends within a step of its budget
    budgets = sorted(set(check_points(frame, "x").frame["budget"]))
    assert len(budgets) == 2 and budgets[0] == pytest.approx(1.0005e18)


def test_rows_that_cannot_be_used_are_named():
    frame = _points()
    frame.loc[3, "loss"], frame.loc[5, "loss"], frame.loc[8, "method"] = np.nan, -1.0, None
    frame = pd.concat([frame, frame.iloc[[0]]])
    points = check_points(frame, "x")
    assert len(points.frame) == len(frame) - 4
    assert points.notes[0] == (
        "3 of 36 rows are left out: no loss (line 5); loss is not above 0 (line 7); no method (line 10)."
    )
    assert any("1 rows repeat an earlier one" in note and "line 37" in note for note in points.notes)


def test_rows_given_twice_do_not_make_intervals_narrower():
    frame = _points(noise=0.003, seeds=2)
    once, twice = (fit(check_points(each, "x"), 100) for each in (frame, pd.concat([frame, frame, frame])))
    assert once.optima["dense"].params_exponent == twice.optima["dense"].params_exponent
    assert any("counted once" in note for note in twice.notes)
    frame["loss"] = frame["loss"].round(2)  # two seeds may well end on the same two decimals
    seeds = frame.assign(seed=np.arange(len(frame)) % 2)
    assert len(check_points(seeds, "x").frame) == len(frame)


def test_lines_are_those_of_the_file(tmp_path):
    text = 'method,flops,loss,params\n\n\ndense,1e18,3,1e8\n"a\nb",1e18,-1,1e8\n  \ndense,1e18,x,1e8\n'
    (tmp_path / "points.csv").write_text(text)
    assert read_points(tmp_path / "points.csv").notes[0] == (
        "2 of 3 rows are left out: loss is not above 0 (line 5); loss is no number (line 8)."
    )


def test_each_row_may_have_params_or_tokens(tmp_path):
    header = "method,flops,loss,params,tokens\n"
    (tmp_path / "points.csv").write_text(f"{header}a,6e18,3,1e8,\na,6e18,3.1,,2e10\na,6e18,3.2, ,\n")
    points = read_points(tmp_path / "points.csv")
    assert points.frame["tokens"].tolist() == pytest.approx([1e10, 2e10])
    assert points.frame["params"].tolist() == pytest.approx([1e8, 5e7])
    assert points.notes[0] == "1 of 3 rows are left out: neither params nor tokens (line 4)."
    assert {"tokens are derived in 1 of 2 rows: flops / (6 params).",
            "params are derived in 1 of 2 rows: flops / (6 tokens)."} <= set(points.notes)  # fmt: skip
    (tmp_path / "points.csv").write_text(f"{header}a,6e18,3,1e8,\na,6e18,3.1,2e8,\n")  # a column, and nothing in it
    points = read_points(tmp_path / "points.csv")
    assert points.frame["tokens"].tolist() == pytest.approx([1e10, 5e9])
    assert points.notes == ["tokens are derived: flops / (6 params)."]


def test_params_in_billions_are_told_to_be_counted_one_by_one(tmp_path):
    (tmp_path / "points.csv").write_text("method,flops,loss,params\na,1e18,3,0.124\na,1e18,3,1.3e8\n")
    assert (
        "params is below 1, and it is counted in single params, not in millions or billions (line 2)"
        in (read_points(tmp_path / "points.csv").notes[0])
    )
    (tmp_path / "points.csv").write_text("method,flops,loss,params\na,1e18,3,0.124\n")
    with pytest.raises(UserError, match="no point that can be used: params is below 1, .* not in millions or billions"):
        read_points(tmp_path / "points.csv")


@pytest.mark.parametrize(
    "header", ["Method,FLOPs,Loss,Params", "method ,flops, loss ,params", "\ufeffmethod,flops,loss,params"]
)
def test_column_names_are_taken_as_they_are_meant(tmp_path, header):
    (tmp_path / "points.csv").write_text(f"{header}\ndense,1e18,3,1e8\n", encoding="utf-8")
    assert read_points(tmp_path / "points.csv").frame.loc[0, "loss"] == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method,flops,loss,Loss,params\na,1,2,3,4\n", "more than one column for loss: loss, Loss"),
        ("method,flops,val_loss,params\na,1,2,3\n", "no column loss; .* has method, flops, val_loss, params"),
        ("method,flops,loss,params\na,1,2,3\n\na,1,2,3,4\n", "line 4 has 5 values for 4 columns"),
    ],
)
def test_column_names_that_could_mean_two_things_are_asked_about(tmp_path, text, told):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        read_points(tmp_path / "points.csv")


def _floor_then_cliff(frame):
    """The losses of 1e19 made a floor with a cliff: a parabola's minimum then lies below all of them."""
    own = frame.index[frame["flops"] == 1e19]
    frame.loc[own, "loss"] = [3.0, 3.02, 3.0, 3.01, 3.0, 3.3, 3.9]
    return frame


def test_a_minimum_below_what_any_size_reached_by_more_than_noise_is_a_poor_fit():
    fits = fit(check_points(_floor_then_cliff(_points(noise=0.001)), "x"), bootstraps=0)
    assert [o.status for o in fits.optima["dense"].optima] == ["ok", "ok", "poor fit", "ok", "ok"]
    assert any("by more than noise" in note for note in fits.notes)
    text = table(fits)
    row = next(line for line in text.splitlines() if line.startswith("| dense | 1e19"))
    assert row == "| dense | 1e19 | – | – | – | – | poor fit |"


def test_noise_alone_seldom_makes_a_poor_fit():
    found = [
        optimum.status
        for seed in range(40)
        for optimum in fit_method(
            check_points(_points(noise=0.003, seed=seed, seeds=2), "x").of("dense"), 0, np.random.default_rng(0)
        ).optima
    ]
    assert found.count("poor fit") <= 0.05 * len(found)


def test_optima_within_one_size_of_an_end_are_flagged():
    frame = _points()
    off = frame.index[frame["flops"] == 1e19]
    frame.loc[off, "params"] = _best(1e19) * 1.4 ** (np.arange(7) - 0.5)  # only just inside
    frame.loc[off, "loss"] = _loss(frame.loc[off, "params"], 1e19 / (6 * frame.loc[off, "params"]))
    fits = fit(check_points(frame, "x"), bootstraps=0)
    assert [o.near_edge for o in fits.optima["dense"].optima] == [False, False, True, False, False]
    assert "ok, near the edge" in table(fits)
    assert [o["near_edge"] for o in fits.plain()["methods"]["dense"]["optima"]].count(True) == 1


def test_a_value_without_an_interval_says_so():
    frame = _points(noise=0.05, span=2.0, sizes=5, seed=3)  # so noisy that drawn parabolas open downwards
    fits = fit(check_points(frame, "x"), bootstraps=100)
    found = [o for o in fits.optima["dense"].optima if o.status == "ok"]
    assert any(np.isinf([o.params.low, o.params.high]).all() for o in found) and fits.optima["dense"].params_exponent
    for line in table(fits).splitlines():
        cells = [cell.strip() for cell in line.split("|")[3:-2]]
        if line.startswith("| dense"):
            assert all(cell == "–" or "to" in cell or "open" in cell or "or " in cell for cell in cells), line
    assert "(interval open)" in table(fits) and "(open at both ends)" in table(fits)
    without = table(fit(check_points(frame, "x"), bootstraps=0))
    assert "interval open" not in without and "(open" not in without


def test_drawn_minima_beyond_the_sizes_that_were_run_open_the_interval_and_do_not_lower_the_loss():
    frame = _points(budgets=(1e19,), seeds=2)
    frame["params"] *= 2.2  # the optimum is just inside the smallest size
    frame["loss"] = _loss(frame["params"], 1e19 / (6 * frame["params"]))
    frame["loss"] *= 1 + 0.01 * np.random.default_rng(1).standard_normal(len(frame))
    fits = fit(check_points(frame, "x"), bootstraps=400)
    own = fits.optima["dense"].optima[0]
    curve = [np.polynomial.polynomial.polyval(np.log(n / own.centre), own.curve) for n in frame["params"]]
    assert own.status == "ok" and own.params.low == -np.inf and np.isfinite(own.params.high)
    assert own.loss.low > min(curve) * 0.97
    assert fits.plain()["methods"]["dense"]["optima"][0]["params"]["low"] is None


def test_names_reach_the_table_as_plain_text_in_notes_too():
    fits = fit(check_points(_points(method="<img src=x onerror=alert(1)> [a](b)", budgets=(1e19,)), "x"), bootstraps=0)
    text = table(fits)
    assert "<img" not in text and "[a](b)" not in text and text.count("&lt;img") >= 3


@pytest.mark.parametrize(
    "text,told",
    [
        ("", "cannot read"),
        ("method,flops\ndense,1\n", "no column loss"),
        ("method,flops,loss\ndense,1,2\n", "no column params or tokens"),
        ("method,flops,loss,params\ndense,1,-2,3\n", "no point that can be used"),
    ],
)
def test_a_file_of_no_use_is_one_line(text, told, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_points(path)


def test_the_command_writes_what_it_promises(tmp_path, capsys):
    path = tmp_path / "points.csv"
    frame = pd.concat([_points(noise=0.002, seeds=2), _points(noise=0.002, seeds=2, method="a|b<c>", better=1.5)])
    frame["tokens"] = frame["flops"] / (6 * frame.pop("params"))
    frame.to_csv(path, index=False)
    assert main([str(path), "--bootstraps", "100"]) == 0
    found = json.loads((tmp_path / "fit.json").read_text())["methods"]
    assert set(found) == {"dense", "a|b<c>"}
    keys = {"optima", "tokens_exponent", "tokens_coefficient", "params_exponent", "params_coefficient", "parametric"}
    assert keys <= set(found["dense"])
    assert set(found["dense"]["parametric"]) >= {"E", "A", "B", "alpha", "beta"}
    assert set(found["dense"]["parametric"]["E"]) == {"value", "low", "high"}
    assert set(found["dense"]["optima"][0]["params"]) == {"value", "low", "high"}
    assert "<svg" in (tmp_path / "fit.svg").read_text()
    out = capsys.readouterr().out
    assert out.strip() == (tmp_path / "fit.md").read_text().strip()
    assert "a\\|b&lt;c&gt;" in out and "params coefficient" in out and "times the FLOPs" in out
    assert main([str(tmp_path / "none.csv")]) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method;flops;loss;params\na;1;2;3\n", "separated by commas"),
        ("method,flops,loss,params\n", "no row"),
        ("method,flops,loss\na,1,2\n", "params or tokens"),
    ],
)
def test_files_of_no_use_are_told_why(tmp_path, text, told):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        read_points(tmp_path / "points.csv")


def test_any_name_is_a_name_and_line_breaks_in_it_are_not(tmp_path):
    frame = pd.concat([_points(method="NA"), _points(method="None"), _points(method="a\nb")])
    frame.to_csv(tmp_path / "points.csv", index=False)
    points = read_points(tmp_path / "points.csv")
    assert points.methods == ["NA", "None", "a b"] and len(points.frame) == len(frame)


def test_values_beyond_reason_are_left_out_and_named():
    frame = _points()
    frame.loc[0, "flops"], frame.loc[1, "loss"] = 1e-300, 1e300
    points = check_points(frame, "x")
    assert len(points.frame) == len(frame) - 2
    assert "flops is below 1" in points.notes[0] and "loss is above 1e+60 (line 3)" in points.notes[0]


def test_budgets_that_drift_do_not_merge_into_one():
    frame = pd.DataFrame({"method": "dense", "flops": 1e18 * 1.009 ** np.arange(100), "loss": 2.0, "params": 1e8})
    assert check_points(frame, "x").frame["budget"].nunique() >= 50


def test_columns_in_other_units_are_asked_about():
    frame = _points()
    frame["tokens"] = 5.0
    assert any("another unit" in note for note in check_points(frame, "x").notes)


def test_dense_is_the_reference_however_it_is_written():
    frame = pd.concat([_points(method="Dense"), _points(method="mod", better=2.0)])
    assert list(fit(check_points(frame, "x"), bootstraps=0).equivalents) == ["mod"]
    frame = pd.concat([_points(method="base"), _points(method="mod", better=2.0)])
    assert any("no method is called dense" in note for note in fit(check_points(frame, "x"), bootstraps=0).notes)


@pytest.mark.parametrize(
    "words", [["fit.json"], ["points.csv", "--bootstraps", "5"], ["points.csv", "--bootstraps", "-1"]]
)
def test_the_points_are_never_written_over_and_few_resamples_are_refused(tmp_path, words, capsys):
    _points().to_csv(tmp_path / words[0], index=False)
    before = (tmp_path / words[0]).read_bytes()
    assert main([str(tmp_path / words[0]), *words[1:]]) == 2
    assert (tmp_path / words[0]).read_bytes() == before and "Traceback" not in capsys.readouterr().err
