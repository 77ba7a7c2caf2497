"""Reading points: units, columns, encodings, and rows that cannot be used."""

import numpy as np
import pandas as pd
import pytest
from law_points import make_points

from bench.errors import UserError
from bench.stats.points import check_points, read_points


def test_budgets_within_one_percent_are_grouped_never_rounded():
    frame = make_points(budgets=(1e18, 1.03e18), sizes=4)
    frame.loc[0, "flops"] *= 1.002  # a run ends within a step of its budget
    budgets = sorted(set(check_points(frame, "x").frame["budget"]))
    assert len(budgets) == 2 and budgets[0] == pytest.approx(1.0005e18)


def test_unusable_rows_are_named():
    frame = make_points()
    frame.loc[3, "loss"], frame.loc[5, "loss"], frame.loc[8, "method"] = np.nan, -1.0, None
    frame = pd.concat([frame, frame.iloc[[0]]])
    points = check_points(frame, "x")
    assert len(points.frame) == len(frame) - 4
    assert points.notes[0] == (
        "3 of 36 rows are excluded: no loss (line 5); loss is not above 0 (line 7); no method (line 10)."
    )
    assert any("1 rows repeat an earlier one" in note and "line 37" in note for note in points.notes)


def test_notes_give_the_lines_of_the_file(tmp_path):
    text = 'method,flops,loss,params\n\n\ndense,1e18,3,1e8\n"a\nb",1e18,-1,1e8\n  \ndense,1e18,x,1e8\n'
    (tmp_path / "points.csv").write_text(text)
    assert read_points(tmp_path / "points.csv").notes[0] == (
        "2 of 3 rows are excluded: loss is not above 0 (line 5); "
        "loss is not a number such as 8.069e6, but 'x' (line 8)."
    )


def test_rows_may_have_params_or_tokens(tmp_path):
    header = "method,flops,loss,params,tokens\n"
    (tmp_path / "points.csv").write_text(f"{header}a,6e18,3,1e8,\na,6e18,3.1,,2e10\na,6e18,3.2, ,\n")
    points = read_points(tmp_path / "points.csv")
    assert points.frame["tokens"].tolist() == pytest.approx([1e10, 2e10])
    assert points.frame["params"].tolist() == pytest.approx([1e8, 5e7])
    assert points.notes[0] == "1 of 3 rows are excluded: neither params nor tokens (line 4)."
    assert {"tokens are derived in 1 of 2 rows: flops / (6 params).",
            "params are derived in 1 of 2 rows: flops / (6 tokens)."} <= set(points.notes)  # fmt: skip
    (tmp_path / "points.csv").write_text(f"{header}a,6e18,3,1e8,\na,6e18,3.1,2e8,\n")  # a column, and nothing in it
    points = read_points(tmp_path / "points.csv")
    assert points.frame["tokens"].tolist() == pytest.approx([1e10, 5e9])
    assert points.notes == ["tokens are derived: flops / (6 params)."]


def test_params_in_billions_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "points.csv").write_text("method,flops,loss,params\na,1e18,3,0.124\na,1e18,3,1.3e8\n")
    assert (
        "params is below 1000 (0.124); write single params, not thousands, millions or billions (line 2)"
        in (read_points(tmp_path / "points.csv").notes[0])
    )
    (tmp_path / "points.csv").write_text("method,flops,loss,params\na,1e18,3,0.124\n")
    with pytest.raises(
        UserError, match="no point that can be used: params is below 1000 .* not thousands, millions or billions"
    ):
        read_points(tmp_path / "points.csv")


@pytest.mark.parametrize(
    "header", ["Method,FLOPs,Loss,Params", "method ,flops, loss ,params", "\ufeffmethod,flops,loss,params"]
)
def test_column_names_match_in_any_case_and_spacing(tmp_path, header):
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
def test_ambiguous_column_names_are_refused(tmp_path, text, told):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        read_points(tmp_path / "points.csv")


@pytest.mark.parametrize(
    "text,told",
    [
        ("", "cannot read"),
        ("method,flops\ndense,1\n", "no column loss"),
        ("method,flops,loss\ndense,1,2\n", "no column params or tokens"),
        ("method,flops,loss,params\ndense,1,-2,3\n", "no point that can be used"),
    ],
)
def test_unusable_files_are_refused_in_one_line(text, told, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        read_points(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method;flops;loss;params\na;1;2;3\n", "separated by commas"),
        ("method,flops,loss,params\n", "no row"),
        ("method,flops,loss\na,1,2\n", "params or tokens"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path, text, told):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        read_points(tmp_path / "points.csv")


def test_method_names_keep_na_and_lose_line_breaks(tmp_path):
    frame = pd.concat([make_points(method="NA"), make_points(method="None"), make_points(method="a\nb")])
    frame.to_csv(tmp_path / "points.csv", index=False)
    points = read_points(tmp_path / "points.csv")
    assert points.methods == ["NA", "None", "a b"] and len(points.frame) == len(frame)


def test_values_beyond_reason_are_excluded_and_named():
    frame = make_points()
    frame.loc[0, "flops"], frame.loc[1, "loss"] = 1e-300, 1e300
    points = check_points(frame, "x")
    assert len(points.frame) == len(frame) - 2
    assert "flops is below 1" in points.notes[0] and "loss is above 1e+60 (line 3)" in points.notes[0]


def test_drifting_budgets_do_not_merge():
    frame = pd.DataFrame({"method": "dense", "flops": 1e18 * 1.009 ** np.arange(100), "loss": 2.0, "params": 1e8})
    assert check_points(frame, "x").frame["budget"].nunique() >= 50


def test_columns_in_other_units_are_noted():
    frame = make_points()
    frame["tokens"] = 5.0
    assert any("another unit" in note for note in check_points(frame, "x").notes)


def _write(path, frame, **options):
    frame.to_csv(path, index=False, **options)
    return path


def test_utf16_and_byte_order_marks_are_read(tmp_path):
    frame = make_points()
    for encoding in ("utf-16", "utf-16-le", "utf-8-sig", "utf-8"):
        path = _write(tmp_path / f"{encoding}.csv", frame, encoding=encoding)
        if encoding == "utf-16-le":
            path.write_bytes(b"\xff\xfe" + path.read_bytes())
        assert len(read_points(path).frame) == len(frame)


def test_bytes_that_are_not_utf8_are_refused_with_line_and_remedy(tmp_path):
    (tmp_path / "points.csv").write_bytes(b"method,flops,loss,params\nd\xe9nse,1e18,3,1e8\n")
    with pytest.raises(UserError, match="line 2 holds the byte 0xe9, .* Save the file as UTF-8"):
        read_points(tmp_path / "points.csv")


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_decimal_commas_and_other_separators_are_refused_with_the_remedy(tmp_path, separator, word):
    path = _write(tmp_path / "points.csv", make_points(), sep=separator, decimal=",")
    with pytest.raises(UserError, match=rf"line 1 .* separated by {word}.* separated by commas .* decimal=','"):
        read_points(path)


@pytest.mark.parametrize("unit", ["M", "B", " GB"])
def test_numbers_with_units_are_refused_with_value_and_remedy(tmp_path, unit):
    frame = make_points()
    frame["params"] = [f"{params / 1e6:.3f}{unit}" for params in frame["params"]]
    with pytest.raises(UserError, match=rf"params is not a number such as 8.069e6, but '[\d.]+{unit}' \(line 2, 3"):
        read_points(_write(tmp_path / "points.csv", frame))


def test_params_in_millions_alone_are_refused_with_the_remedy(tmp_path):
    for scale, found in ((1e6, "tokens per parameter"), (1e9, "params is below 1000 ")):
        frame = make_points()
        frame["params"] /= scale
        with pytest.raises(UserError, match=f"{found}.* write single params, not thousands, millions or billions"):
            read_points(_write(tmp_path / "points.csv", frame))


def test_tokens_in_billions_alone_are_refused_with_the_remedy():
    frame = make_points()
    frame["tokens"] = frame["flops"] / 6 / frame.pop("params") / 1e9
    with pytest.raises(UserError, match="write single tokens, not thousands, millions or billions"):
        check_points(frame, "x")


def test_perplexities_are_refused_with_the_remedy():
    frame = make_points()
    frame["loss"] = np.exp(frame["loss"])
    frame.loc[0, "loss"] = 9.0  # a low perplexity alone could be a loss
    with pytest.raises(UserError, match="loss is above 12.6 nats/token.* perplexity, write its natural logarithm"):
        check_points(frame, "x")


def test_a_diverged_run_is_excluded_and_named():
    frame = make_points()
    frame.loc[3, "loss"] = 54.7
    points = check_points(frame, "x")
    assert len(points.frame) == len(frame) - 1 and "(line 5)" in points.notes[0]


def test_budget_column_is_respected():
    frame = make_points(budgets=(1e18, 1e19), sizes=4)
    frame["budget"] = frame["flops"]
    frame["flops"] *= 1 + 0.04 * np.random.default_rng(0).standard_normal(len(frame))
    assert sorted(set(check_points(frame, "x").frame["budget"])) == [1e18, 1e19]
    assert check_points(frame.drop(columns="budget"), "x").frame["budget"].nunique() > 2
    with pytest.raises(UserError, match="column budget, which --cluster would override"):
        check_points(frame, "x", cluster=0.05)


def test_flops_off_a_figure_are_clustered_on_request():
    frame = make_points(budgets=(1e18, 1e19), sizes=6)
    frame["flops"] *= np.tile([0.98, 0.99, 1.0, 1.005, 1.01, 1.02], 2)
    assert check_points(frame, "x").frame["budget"].nunique() > 2
    assert check_points(frame, "x", cluster=0.05).frame["budget"].nunique() == 2


def test_decimal_commas_are_refused_with_the_remedy():
    frame = make_points()
    frame["loss"] = [f"{loss:.3f}".replace(".", ",") for loss in frame["loss"]]
    with pytest.raises(UserError, match="but '3,[0-9]+'; write decimals with a point"):
        check_points(frame, "x")
