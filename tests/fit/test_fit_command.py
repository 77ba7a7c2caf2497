"""`python -m bench.fit` and its Python API."""

import json

import pandas as pd
import pytest
from law_points import make_points

from bench.errors import UserError
from bench.fit import isoflop
from bench.fit.__main__ import main
from bench.fit.page import table
from bench.stats.fits import fit
from bench.stats.points import check_points


def test_table_escapes_method_names():
    fits = fit(
        check_points(make_points(method="<img src=x onerror=alert(1)> [a](b)", budgets=(1e19,)), "x"), bootstraps=0
    )
    text = table(fits)
    assert "<img" not in text and "[a](b)" not in text and text.count("&lt;img") >= 3


def test_command_writes_json_figure_and_table(tmp_path, capsys):
    path = tmp_path / "points.csv"
    frame = pd.concat(
        [make_points(noise=0.002, seeds=2), make_points(noise=0.002, seeds=2, method="a|b<c>", better=1.5)]
    )
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
    "words", [["fit.json"], ["points.csv", "--bootstraps", "5"], ["points.csv", "--bootstraps", "-1"]]
)
def test_command_never_overwrites_points_or_takes_few_resamples(tmp_path, words, capsys):
    make_points().to_csv(tmp_path / words[0], index=False)
    before = (tmp_path / words[0]).read_bytes()
    assert main([str(tmp_path / words[0]), *words[1:]]) == 2
    assert (tmp_path / words[0]).read_bytes() == before and "Traceback" not in capsys.readouterr().err


def test_isoflop_of_a_frame_gives_a_row_per_method_and_budget():
    frame = pd.concat([make_points(noise=0.002), make_points(noise=0.002, method="mod", better=2.0)])
    fits = isoflop(frame, bootstraps=100)
    rows = fits.frame()
    assert rows["method"].tolist() == ["dense"] * 5 + ["mod"] * 5 and set(rows["status"]) == {"ok"}
    first = fits.optima["mod"].optima[0]
    row = rows[rows["method"] == "mod"].iloc[0]
    assert (row["params"], row["loss_low"]) == (first.params.value, first.loss.low)
    assert row["dense_needs"] == fits.equivalents["mod"][0].times.value
    assert rows[rows["method"] == "dense"]["dense_needs"].isna().all()


def test_isoflop_of_a_frame_without_a_column_names_it():
    with pytest.raises(UserError, match="the frame has no column loss"):
        isoflop(make_points().drop(columns="loss"))


def test_command_shows_progress_and_no_raw_warning(tmp_path, capsys, recwarn):
    make_points(noise=0.05, span=2.0, sizes=5, seed=3, seeds=2).to_csv(tmp_path / "points.csv", index=False)
    assert main([str(tmp_path / "points.csv"), "--bootstraps", "100"]) == 0
    assert "parametric law, dense" in capsys.readouterr().err and not recwarn.list
