"""A small isoFLOP study, end to end: run, killed, resumed, run again, and packed."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.records.convert import pack
from bench.records.isoflop import load_study

WORDS = [
    "+study=isoflop_cpu", "study.name=small", "study.grid.shapes=[[2,16,1],[2,24,1],[2,32,2]]",
    "study.grid.budgets=[4e9,1e10]", "study.grid.methods=[dense,mod]", "study.grid.sizes=3", "study.grid.seeds=2",
    "study.grid.rates=[]", "study.grid.controls=[[mod,mod_random]]", "study.grid.control_budget=null",
    "study.grid.snapshots=1", "study.grid.timing_rounds=1", "study.grid.workers=2", "evaluate.validation_tokens=1024",
    "model.context=64", "train.batch_size=4", "train.log_every=5", "train.checkpoint_every_seconds=0.3",
]  # fmt: skip


def command(folder: Path, cache: Path, *more: str) -> list[str]:
    places = [f"results_dir={folder / 'results'}", f"reports_dir={folder / 'reports'}", f"data.cache_dir={cache}"]
    return [sys.executable, "-m", "bench", *WORDS, *places, *more]


def finish(folder: Path, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, cache, *more), capture_output=True, text=True, cwd=folder)


def deterministic(folder: Path) -> dict[str, Any]:
    """Run id -> its record without measured times."""
    found = {}
    for path in sorted((folder / "results" / "small").glob("*/record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["training"]["seconds"], record["run"]["created"], record["command"]
        for part in ("speed", "memory", "energy", "environment"):
            record.pop(part, None)
        found[path.parent.name] = record
    return found


WRONG_COUNTS = """
from bench.methods.depth import DepthRouted

right = DepthRouted.flops
DepthRouted.flops = lambda self, tokens: {part: flops / 2 for part, flops in right(self, tokens).items()}
"""


@pytest.fixture(scope="module")
def cache() -> Path:
    return Path(__file__).resolve().parents[2] / ".cache" / "bench"  # shared: no text is read twice


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache: Path) -> Path:
    """A study that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = finish(folder, cache)
    assert done.returncode == 0, done.stderr
    return folder


def test_study_leaves_every_run_it_names_and_a_report(whole: Path):
    study = load_study(whole / "results" / "small" / "isoflop.json")
    stages = study.stages
    assert (len(stages.grid), len(stages.seeds), len(stages.controls)) == (12, 4, 2)
    named = {*stages.grid, *stages.seeds, *stages.controls}
    assert set(deterministic(whole)) == named and len(named) == 18
    assert len(study.timings) == 6 and 0 < study.training_seconds < study.worker_seconds
    assert study.study_seconds is not None and study.study_seconds * study.packings[0].workers > study.worker_seconds
    paths = (whole / "results" / "small").glob("*/record.json")
    recorded = sum(json.loads(path.read_text(encoding="utf-8"))["training"]["seconds"] for path in paths)
    assert "of the whole study" in study.shares(recorded)
    assert study.tokens is not None and set(study.tokens.depth) == {"mod"}
    (other,) = study.tokens.seeds["mod"]
    assert other in named and other != study.tokens.runs["mod"]
    page = (whole / "reports" / "small" / "index.html").read_text(encoding="utf-8")
    assert "nconclusive" in page and "<svg" in page


def test_study_runs_spend_their_budget_to_within_a_step(whole: Path):
    for run, record in deterministic(whole).items():
        step = record["flops"]["train_total"] / record["training"]["steps"]
        assert abs(record["flops"]["train_total"] - record["config"]["train"]["budget_flops"]) < step, run


def test_study_run_again_repeats_nothing(whole: Path, cache: Path):
    before = {path: path.stat().st_mtime_ns for path in (whole / "results").rglob("record.json")}
    assert finish(whole, cache).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (whole / "results").rglob("record.json")} == before


def test_study_packed_is_found_finished(whole: Path, cache: Path, tmp_path: Path):
    shutil.copytree(
        whole / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.safetensors", "snapshots")
    )
    study = tmp_path / "results" / "small"
    pack(study)
    packs = {path: path.read_bytes() for path in study.glob("*.zst")}
    done = finish(tmp_path, cache)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in study.iterdir()} == {path.name for path in (*packs, study / "isoflop.json")}
    assert {path: path.read_bytes() for path in packs} == packs
    theirs, ours = (load_study(folder / "results" / "small" / "isoflop.json") for folder in (whole, tmp_path))
    assert ours.stages == theirs.stages and ours.tokens == theirs.tokens and ours.timings == theirs.timings
    tables = [sorted((folder / "reports" / "small" / "tables").iterdir()) for folder in (whole, tmp_path)]
    assert [path.read_bytes() for path in tables[0]] == [path.read_bytes() for path in tables[1]]


def files(folder: Path) -> dict[str, Any]:
    """Run id/file -> its content without measured times: steps, validation documents, routing, weights."""
    found: dict[str, Any] = {}
    for run in sorted((folder / "results" / "small").glob("*/")):
        with open(run / "steps.csv", newline="", encoding="utf-8") as file:
            found[f"{run.name}/steps"] = [
                {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
            ]
        for name in ("documents.csv", "routing.json"):
            if (run / name).exists():
                found[f"{run.name}/{name}"] = (run / name).read_text(encoding="utf-8")
        for path in (run / "model.safetensors", *(run / "snapshots").glob("*.safetensors")):
            tensors = load_file(path)
            found[f"{run.name}/{path.name}"] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


@pytest.mark.parametrize("times", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_study_stopped_at_random_resumes_to_the_same_files(whole: Path, cache: Path, tmp_path: Path, times: int):
    rng = random.Random(20261124)
    ways = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT)[:times]
    stopped = [_stop(tmp_path, cache, how, rng.uniform(0.0, 3.0)) for how in ways]
    assert sum(stopped) >= 2, "it was too fast to be stopped"
    spent = load_study(tmp_path / "results" / "small" / "isoflop.json").training_seconds
    assert spent > 0, "a killed study has recorded the time of the runs that had ended"
    piece = finish(tmp_path, cache, "study.grid.minutes=0.0005")
    assert piece.returncode == 130 and "To resume" in piece.stderr
    assert finish(tmp_path, cache).returncode == 0
    assert deterministic(tmp_path) == deterministic(whole)
    ours, theirs = files(tmp_path), files(whole)
    assert ours.keys() == theirs.keys() and len(ours) > 3 * 18
    assert [name for name in ours if ours[name] != theirs[name]] == []


def _stop(folder: Path, cache: Path, how: signal.Signals, after: float) -> bool:
    """Start the study, and signal it `after` seconds from when its first run of this session has begun.

    False where it had ended before.
    """
    started = subprocess.Popen(command(folder, cache), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
    study = folder / "results" / "small"
    known = {path: path.stat().st_mtime_ns for path in study.glob("*/steps.csv")}

    def begun() -> bool:
        now = {path: path.stat().st_mtime_ns for path in study.glob("*/steps.csv")}
        return now != known or started.poll() is not None

    _wait(begun)
    time.sleep(after)
    if started.poll() is not None:
        return False
    children = _children(started.pid)
    os.kill(started.pid, how)
    assert started.wait(60) != 0
    _wait(lambda: not any(_alive(child) for child in children))
    return True


def test_dry_run_creates_nothing(tmp_path: Path, cache: Path):
    planned = finish(tmp_path, cache, "dry_run=true")
    assert planned.returncode == 0 and "seeds at each optimum" in planned.stdout
    assert not (tmp_path / "results").exists()


def _wait(ready, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "waited for too long"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    """Worker processes of `pid`, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_study_of_a_method_with_wrong_counts_trains_nothing(tmp_path: Path, cache: Path):
    (tmp_path / "counts.py").write_text(WRONG_COUNTS)
    code = "import counts, sys; from bench.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = command(tmp_path, cache)[3:]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "FLOP counts of MoD (seed 0) disagree" in done.stderr, done.stderr
    assert not (tmp_path / "results").exists()
