"""The Python API on the committed studies and on a small real comparison."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_records import make_record, save

import bench
from bench.errors import UserError
from bench.records.convert import pack
from bench.stats.points import check_points

RESULTS = Path(__file__).resolve().parents[2] / "results"
SMALL = [
    "model.n_layers=2", "model.d_model=16", "model.n_heads=1", "model.context=32", "train.batch_size=4",
    "train.budget_flops=6e7", "evaluate.validation_tokens=500", "evaluate.timing_steps=0", "evaluate.tasks=[]",
    "evaluate.decode_batch_sizes=[]", "train.device=cpu",
]  # fmt: skip


def test_import_bench_imports_nothing_heavy():
    code = "import sys, bench; print({'torch', 'pandas', 'pydantic', 'hydra', 'numpy', 'bench.api'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_load_imports_neither_torch_nor_hydra():
    code = f"import sys, bench; bench.load({str(RESULTS / 'ci')!r}); print({{'torch', 'hydra'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_package_offers_what_it_lists_and_nothing_else():
    assert {"load", "compare", "fit"} <= set(dir(bench))
    assert bench.fit.__name__ == "bench.fit" and callable(bench.load) and callable(bench.compare)
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        _ = bench.judge


@pytest.mark.parametrize("key", ["results", "reports"])
def test_compare_refuses_a_place_it_cannot_write_before_training(key, tmp_path):
    with pytest.raises(UserError, match=f"is a file, not a folder. Set {key} to another folder"):
        bench.compare("dense", **({"results": tmp_path, "reports": tmp_path} | {key: __file__}))
    assert list(tmp_path.iterdir()) == []


def test_frame_has_a_row_per_run_and_flat_columns():
    frame = bench.load(RESULTS).frame()
    assert len(frame) == 12 + 113 + 8 + 173 and frame["comparable"].dtype == bool
    for column in bench.api.Runs.frame.__doc__.split("`")[1::2]:
        if "." in column and "*" not in column and "<" not in column:
            assert column in frame or column.startswith(("speed.decode", "energy")), column
    default = frame[frame["run.name"] == "default"]
    assert default["speed.train_step_seconds.median"].notna().all()
    assert any(column.startswith("lm_eval.") for column in default)


def test_points_of_an_isoflop_study_are_those_of_its_curves():
    from bench.isoflop.analysis.results import read_study

    points = bench.load(RESULTS / "isoflop_cpu").points()
    sized = read_study(RESULTS / "isoflop_cpu").sized
    assert list(points)[:5] == ["method", "flops", "params", "tokens", "loss"]
    assert sorted(points["loss"]) == sorted(sized["loss"]) and sorted(points["params"]) == sorted(sized["params_total"])
    assert set(points["method"]) == {"dense", "moe", "mod", "mode/staged"}
    assert check_points(points, "points").notes == []


@pytest.mark.parametrize("told", ["tokenizer", "name", "fingerprint"])
def test_points_of_different_texts_are_refused_with_both(told, tmp_path):
    for number in (0, 1):
        record = make_record("dense", number, run_id=f"run{number}")
        if told == "fingerprint":
            record.run.corpus_fingerprint = f"text{number}"
        else:
            other = {"tokenizer": {"kind": ("bytes", "pretrained")[number]}, "name": f"text{number}"}
            record.config["data"] = {"name": "kjv"} | {told: other[told]}
        save(tmp_path, record)
    with pytest.raises(UserError, match="run0 and .*run1 were trained on different text") as caught:
        bench.load(tmp_path).points()
    assert "\n" not in str(caught.value)


def test_runs_give_their_files_loose_or_packed(tmp_path: Path):
    save(tmp_path, make_record("dense"), [210.0, 490.0, 810.0, 300.0, 600.0])
    save(tmp_path, make_record("mod", variant="x"))
    loose = {run.record.run.id: run for run in bench.load(tmp_path)}
    pack(tmp_path / "tiny")
    for run in bench.load(tmp_path):
        own = loose[run.record.run.id]
        assert run.record == own.record and run.steps.equals(own.steps) and run.routing == own.routing
    dense, mod = bench.load(tmp_path)
    assert dense.documents["nats"].sum() == 2410 and dense.routing is None
    assert mod.documents is None and mod.routing.n_noop == 1 and mod.method.title == "MoD (x)"
    assert len(bench.load(tmp_path / "tiny" / mod.record.run.id)) == 1


def test_a_damaged_file_is_warned_of_and_the_others_load(tmp_path: Path):
    save(tmp_path, make_record("dense"))
    (save(tmp_path, make_record("mod")) / "record.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="not a complete JSON file"):
        runs = bench.load(tmp_path)
    assert len(runs) == len(runs.problems) == 1
    (tmp_path / "tiny" / "dense--s0" / "steps.csv").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"steps\.csv cannot be used"):
        _ = runs[0].steps


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_a_folder_without_runs_is_named(tmp_path: Path, missing: str):
    with pytest.raises(UserError, match="no finished run below"):
        bench.load(tmp_path / missing)


def test_compare_trains_reuses_and_finds_packed_runs(tmp_path: Path, capsys):
    asked = {"overrides": [*SMALL, "name=small"], "results": tmp_path / "r", "reports": tmp_path / "q"}
    runs = bench.compare("mod", "mode/staged", seeds=(0, 1), **asked)
    frame = runs.frame()
    assert sorted(map(tuple, frame[["method", "run.seed"]].values)) == [
        (method, seed) for method in ("dense", "mod", "mode") for seed in (0, 1)
    ]
    assert (frame["run.status"] == "finished").all() and (frame["config.train.budget_flops"] == 6e7).all()
    assert (tmp_path / "q" / "small" / "index.html").exists()
    pack(tmp_path / "r" / "small")
    shutil.rmtree(tmp_path / "r" / "small" / runs[0].folder.name, ignore_errors=True)  # weights
    capsys.readouterr()
    again = bench.compare("mod", "mode/staged", seeds=(0, 1), **asked)
    assert capsys.readouterr().out.count("is finished and is reused") == 6
    assert again.frame().equals(frame)


@pytest.mark.parametrize(
    ("methods", "overrides", "message"),
    [
        ((), [], "needs a method"),
        (("nonsense",), [], "nonsense is unknown"),
        (("mod",), ["model.d_model=-1"], "model.d_model"),
        (("mod",), ["dry_run=true"], "dry_run"),
        (("mod",), "train.lr=1", "is text; give a list"),
        (("mod",), ["seed=0,1"], "seed=0,1 lists several values"),
    ],
)
def test_compare_refuses_what_cannot_work_before_training(tmp_path: Path, methods, overrides, message):
    with pytest.raises(UserError, match=message):
        bench.compare(*methods, overrides=overrides, results=tmp_path / "r", reports=tmp_path / "q")
    assert not any(tmp_path.iterdir())
