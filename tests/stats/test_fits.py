"""Fits on laws whose parameters are known: noise, outliers, uneven grids, rejected fits."""

import numpy as np
import pandas as pd
import pytest
from law_points import BUDGETS, EXPONENT, LAW, best_params, floor_then_cliff, law_loss, make_points

from bench.fit.page import table
from bench.stats.fits import fit
from bench.stats.parabolas import fit_method
from bench.stats.points import check_points


def test_fit_of_a_law_without_noise_recovers_it():
    fits = fit(check_points(make_points(sizes=9, span=3.0), "x"), bootstraps=0)
    own, law = fits.optima["dense"], fits.parametric["dense"]
    assert [optimum.status for optimum in own.optima] == ["ok"] * 5
    assert own.params_exponent.value == pytest.approx(EXPONENT, abs=0.002)
    assert own.tokens_exponent.value == pytest.approx(1 - EXPONENT, abs=0.002)
    for optimum, flops in zip(own.optima, BUDGETS, strict=True):
        assert optimum.params.value == pytest.approx(best_params(flops), rel=0.03)  # a parabola is not quite the law
        assert optimum.params.value * optimum.tokens.value * 6 == pytest.approx(flops, rel=1e-6)
    for name, value in LAW.items():
        assert getattr(law, name).value == pytest.approx(value, rel=1e-3)
    assert law.params_exponent.value == pytest.approx(EXPONENT, rel=1e-3)


def test_exponent_interval_covers_the_truth_at_its_nominal_rate():
    held, widths, values = 0, [], []
    for seed in range(100):
        points = check_points(make_points(noise=0.003, seed=seed, seeds=2), "x")
        own = fit_method(points.of("dense"), 300, np.random.default_rng(seed)).params_exponent
        held += own.low <= EXPONENT <= own.high
        widths.append(own.high - own.low)
        values.append(own.value)
    low, high = np.percentile(values, [2.5, 97.5])
    assert held >= 90
    assert np.median(widths) <= 2 * (high - low)


def test_parametric_interval_with_outliers_covers_the_truth():
    frame = make_points(noise=0.003, seeds=3)
    frame.loc[::17, "loss"] *= 1.1  # a run in seventeen went wrong
    law = fit(check_points(frame, "x"), bootstraps=100).parametric["dense"]
    assert law.params_exponent.low <= EXPONENT <= law.params_exponent.high
    assert law.E.low <= LAW["E"] <= law.E.high
    assert law.params_exponent.high - law.params_exponent.low < 0.1


@pytest.mark.parametrize("seeds", [2, 3])
def test_outlier_runs_are_named_and_leave_the_law_its_interval(seeds):
    clean, frame = make_points(noise=0.003, seeds=seeds), make_points(noise=0.003, seeds=seeds)
    wrong = frame.index[::17]
    frame.loc[wrong, "loss"] *= 1.1  # a run in seventeen
    fits = fit(check_points(frame, "x"), bootstraps=200)
    own = fits.optima["dense"]
    found = sorted(outlier.loss for optimum in own.optima for outlier in optimum.outliers)
    assert found == pytest.approx(sorted(frame.loc[wrong, "loss"]))
    assert own.params_exponent.low <= EXPONENT <= own.params_exponent.high
    undisturbed = fit_method(check_points(clean, "x").of("dense"), 200, np.random.default_rng(0)).params_exponent
    assert own.params_exponent.high - own.params_exponent.low < 1.5 * (undisturbed.high - undisturbed.low)
    named = " ".join(note for note in fits.notes if "excluded from the parabola" in note)
    assert all(f"with a loss of {loss:.4g}," in named for loss in frame.loc[wrong, "loss"])
    assert sum(len(o["outliers"]) for o in fits.plain()["methods"]["dense"]["optima"]) == len(wrong)


def test_outliers_in_noise_or_without_a_parabola_are_none():
    frames = [make_points(noise=0.003, seed=seed, seeds=seed % 3 + 1) for seed in range(30)]
    frames += [floor_then_cliff(make_points(noise=0.001)), make_points(span=200.0), make_points(noise=0.02, seeds=2)]
    for frame in frames:
        own = fit_method(check_points(frame, "x").of("dense"), 0, np.random.default_rng(0))
        assert not any(optimum.outliers for optimum in own.optima)


def test_dense_equivalent_ends_beyond_the_optima_are_marked():
    frame = pd.concat(
        [make_points(noise=0.01, seeds=2), make_points(noise=0.01, seed=1, seeds=2, method="mod", better=3.0)]
    )
    fits = fit(check_points(frame, "x"), bootstraps=300)
    first, last = BUDGETS[0], BUDGETS[-1]
    for each, plain in zip(fits.equivalents["mod"], fits.plain()["methods"]["mod"]["dense_equivalent"], strict=True):
        beyond = [not first <= end * each.flops <= last for end in (each.times.low, each.times.high)]
        assert [plain["low_extrapolated"], plain["high_extrapolated"]] == beyond
        assert [np.isinf(each.measured.low), np.isinf(each.measured.high)] == beyond
    told = [each.warning for each in fits.equivalents["mod"]]
    assert told == ["", "", "", "the upper end is an extrapolation", "an extrapolation"]
    assert "(the upper end is an extrapolation)" in table(fits)


def test_dense_equivalent_of_a_method_twice_as_good_is_two():
    frame = pd.concat(
        [make_points(noise=0.001, seeds=3), make_points(noise=0.001, seed=1, seeds=3, method="mod", better=2.0)]
    )
    found = fit(check_points(frame, "x"), bootstraps=200).equivalents["mod"]
    assert [each.extrapolated for each in found] == [False] * 4 + [True]
    for each in found[:4]:
        assert each.times.low < each.times.value < each.times.high
        assert each.times.value == pytest.approx(2.0, rel=0.15)
    assert sum(each.times.low <= 2.0 <= each.times.high for each in found) >= 4


def test_rejected_fits_are_kept_with_their_reason():
    frame = make_points()
    middle = frame["flops"] == 1e19
    frame.loc[middle, "loss"] = 6.0 - frame.loc[middle, "loss"]  # opens downwards
    right = (frame["flops"] == 1e20) & (frame["params"] > best_params(1e20))
    few = (frame["flops"] == 1e18) & (frame["params"] > frame.loc[frame["flops"] == 1e18, "params"].nsmallest(2).max())
    fits = fit(check_points(frame[~right & ~few], "x"), bootstraps=0)
    assert [o.status for o in fits.optima["dense"].optima] == ["too few sizes", "ok", "concave", "ok", "edge"]
    assert sum("fit rejected" in note for note in fits.notes) == 3


def test_fit_of_one_budget_gives_its_optimum():
    fits = fit(check_points(make_points(budgets=(1e19,)), "x"), bootstraps=0)
    assert fits.optima["dense"].optima[0].status == "ok"
    assert fits.optima["dense"].params_exponent is None and fits.parametric["dense"] is None
    assert any("needs two budgets" in note for note in fits.notes)


def test_repeated_rows_do_not_narrow_intervals():
    frame = make_points(noise=0.003, seeds=2)
    once, twice = (fit(check_points(each, "x"), 100) for each in (frame, pd.concat([frame, frame, frame])))
    assert once.optima["dense"].params_exponent == twice.optima["dense"].params_exponent
    assert any("counted once" in note for note in twice.notes)
    frame["loss"] = frame["loss"].round(2)  # two seeds may well end on the same two decimals
    seeds = frame.assign(seed=np.arange(len(frame)) % 2)
    assert len(check_points(seeds, "x").frame) == len(frame)


def test_minimum_far_below_every_size_is_a_poor_fit():
    fits = fit(check_points(floor_then_cliff(make_points(noise=0.001)), "x"), bootstraps=0)
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
            check_points(make_points(noise=0.003, seed=seed, seeds=2), "x").of("dense"), 0, np.random.default_rng(0)
        ).optima
    ]
    assert found.count("poor fit") <= 0.05 * len(found)


def test_optima_within_one_size_of_an_end_are_flagged():
    frame = make_points()
    off = frame.index[frame["flops"] == 1e19]
    frame.loc[off, "params"] = best_params(1e19) * 1.4 ** (np.arange(7) - 0.5)  # only just inside
    frame.loc[off, "loss"] = law_loss(frame.loc[off, "params"], 1e19 / (6 * frame.loc[off, "params"]))
    fits = fit(check_points(frame, "x"), bootstraps=0)
    assert [o.near_edge for o in fits.optima["dense"].optima] == [False, False, True, False, False]
    assert "ok, near grid edge" in table(fits)
    assert [o["near_edge"] for o in fits.plain()["methods"]["dense"]["optima"]].count(True) == 1


def test_value_without_an_interval_says_so():
    frame = make_points(noise=0.05, span=2.0, sizes=5, seed=3)  # so noisy that drawn parabolas open downwards
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


def test_drawn_minima_beyond_the_sizes_open_the_interval():
    frame = make_points(budgets=(1e19,), seeds=2)
    frame["params"] *= 2.2  # the optimum is just inside the smallest size
    frame["loss"] = law_loss(frame["params"], 1e19 / (6 * frame["params"]))
    frame["loss"] *= 1 + 0.01 * np.random.default_rng(1).standard_normal(len(frame))
    fits = fit(check_points(frame, "x"), bootstraps=400)
    own = fits.optima["dense"].optima[0]
    curve = [np.polynomial.polynomial.polyval(np.log(n / own.centre), own.curve) for n in frame["params"]]
    assert own.status == "ok" and own.params.low == -np.inf and np.isfinite(own.params.high)
    assert own.loss.low > min(curve) * 0.97
    assert fits.plain()["methods"]["dense"]["optima"][0]["params"]["low"] is None


def test_dense_in_any_case_is_the_reference():
    frame = pd.concat([make_points(method="Dense"), make_points(method="mod", better=2.0)])
    assert list(fit(check_points(frame, "x"), bootstraps=0).equivalents) == ["mod"]
    frame = pd.concat([make_points(method="base"), make_points(method="mod", better=2.0)])
    assert any("no method is called dense" in note for note in fit(check_points(frame, "x"), bootstraps=0).notes)


def test_points_far_above_the_best_are_left_out_of_the_parabola_and_named():
    frame = make_points(noise=0.001, span=200.0, sizes=9)
    fits = fit(check_points(frame, "x"), bootstraps=0, within=0.06)
    best = frame.groupby("flops")["loss"].transform("min")
    near = (frame["loss"] <= 1.06 * best).groupby(frame["flops"]).sum()
    assert [optimum.points for optimum in fits.optima["dense"].optima] == near.tolist() and near.sum() < len(frame)
    assert sum("left out of the parabola" in note for note in fits.notes) == 5
    assert fits.optima["dense"].params_exponent.value == pytest.approx(EXPONENT, abs=0.02)


def test_predictions_without_noise_are_the_laws_own():
    fits = fit(check_points(make_points(span=3.0, sizes=9), "x"), bootstraps=100, at=[1e23])
    params, tokens = best_params(1e23), 1e23 / (6 * best_params(1e23))
    parabolas, law = fits.predictions
    assert (parabolas.approach, law.approach) == (2, 3)
    assert parabolas.params.value == pytest.approx(params, rel=0.05)
    assert parabolas.params.value * parabolas.tokens.value * 6 == pytest.approx(1e23, rel=1e-6)
    assert law.params.value == pytest.approx(params, rel=1e-3)
    assert law.loss.value == pytest.approx(law_loss(params, tokens), rel=1e-4)
    assert "| dense | 1e23 | 3 |" in table(fits)


def test_one_concave_budget_leaves_the_law_its_interval():
    frame = make_points(noise=0.003)
    first = frame["flops"] == BUDGETS[0]
    frame.loc[first, "loss"] = 7.6 - frame.loc[first, "loss"]
    own = fit(check_points(frame, "x"), bootstraps=100).optima["dense"]
    assert own.optima[0].status == "concave"
    assert own.params_exponent.low <= EXPONENT <= own.params_exponent.high
    assert own.params_exponent.high - own.params_exponent.low < 0.2


def test_frame_has_no_infinite_ends():
    frame = make_points(noise=0.05, span=2.0, sizes=5, seed=3)
    found = fit(check_points(frame, "x"), bootstraps=100)
    assert any(np.isinf(optimum.params.low) for optimum in found.optima["dense"].optima if optimum.status == "ok")
    rows = found.frame().select_dtypes(float)
    assert not np.isinf(rows.to_numpy()).any() and rows["params_low"].isna().any()


def test_parametric_law_with_a_floor_above_the_lowest_loss_is_refused():
    frame = make_points()
    frame.loc[len(frame) - 4, "loss"] = 1.5  # below the law's own E, 1.69
    fits = fit(check_points(frame, "x"), bootstraps=0)
    assert fits.parametric["dense"] is None
    assert any("its E would be above the lowest loss, 1.5:" in note for note in fits.notes)
