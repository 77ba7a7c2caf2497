"""The ci study, run small, and the gate on it: quiet on a re-run, loud on an injected regression."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.config.compose import configure
from bench.gate.compare import compare
from bench.gate.load import read_side
from bench.measure.machine import Machine
from bench.records.ci import load_ci
from bench.studies import ci
from bench.train.step import Trainee
from tools.gate_validation.mutants import DETERMINISTIC, inject
from tools.gate_validation.trials import judge

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "+study=ci", "study.methods=[dense,mod]", "study.processes=2", "study.rounds=2", "train.budget_flops=6e9",
    "model.d_model=48", "evaluate.validation_tokens=2048", "evaluate.tasks=[bench_copy]", "evaluate.limit=4",
]  # fmt: skip


def study(source: Path, results: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *SMALL, f"results_dir={results}", f"data.cache_dir={cache}"]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})


@pytest.fixture(scope="module")
def cache() -> Path:
    return ROOT / ".cache" / "bench"  # shared: no text is read twice


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, cache: Path) -> Path:
    results = tmp_path_factory.mktemp("base")
    done = study(ROOT, results, cache)
    assert done.returncode == 0, done.stderr
    return results / "ci"


def test_the_study_says_which_run_is_which_and_samples_each_process(baseline: Path):
    found = load_ci(baseline / "ci.json")
    assert list(found.runs) == ["dense", "mod"]
    assert all((baseline / run / "record.json").exists() for run in found.runs.values())
    assert {method: {k: len(v) for k, v in figures.items()} for method, figures in found.speed.items()} == {
        "dense": {"train_step_over_torch": 2},
        "mod": {"train_step_over_dense": 2},
    }
    assert len(found.encoder_seconds) == 2
    assert read_side(baseline).encoder_seconds == pytest.approx(sum(found.encoder_seconds) / 2)


def test_the_study_says_which_processor_it_ran_on(baseline: Path):
    found = load_ci(baseline / "ci.json").environment
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    family = next((line.split(":")[1].strip() for line in lines if line.startswith("cpu family")), None)
    assert found.processor is None if family is None else found.processor.startswith(f"family {family} model ")


def test_steps_are_timed_on_the_machine_s_device(monkeypatch, cache: Path):
    """Beside the matrix products. `cpu:0` stands for a device that fresh models are not on."""
    device, trained_on = torch.device("cpu", 0), []

    class Watched(Trainee):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trained_on.append(self.device)

    monkeypatch.setattr(ci, "make_machine", lambda config: Machine(device, 1e11))
    monkeypatch.setattr(ci, "Trainee", Watched)
    words = [word for word in SMALL if not word.startswith(("+study", "study."))]
    configs = {name: configure([f"+method={name}", *words, f"data.cache_dir={cache}"]) for name in ("dense", "mod")}
    found, encoder_seconds = ci._sample(configs, rounds=1)
    assert trained_on == [device, device]
    assert encoder_seconds > 0
    assert found["dense"]["train_step_over_torch"] > 0 and found["mod"]["train_step_over_dense"] > 0


def test_a_study_is_never_written_over(baseline: Path, cache: Path):
    before = (baseline / "ci.json").read_bytes()
    done = study(ROOT, baseline.parent, cache)
    assert done.returncode == 2
    assert "already holds a ci study" in done.stderr
    assert (baseline / "ci.json").read_bytes() == before


def test_a_rerun_is_the_same_to_the_bit(baseline: Path, cache: Path, tmp_path: Path):
    assert study(ROOT, tmp_path, cache).returncode == 0
    was, now = read_side(baseline), read_side(tmp_path / "ci")
    assert compare(was, now).status == 0
    for key, figure in was.figures.items():
        if key not in was.samples:
            assert now.figures[key] == figure, key


@pytest.mark.parametrize("name", ["lr_slip", "future_leak", pytest.param("residual_098", marks=pytest.mark.slow)])
def test_gate_on_an_injected_regression_catches_it(baseline: Path, cache: Path, tmp_path: Path, name: str):
    mutant = next(mutant for mutant in DETERMINISTIC if mutant.name == name)
    inject(mutant, tmp_path)
    assert study(tmp_path, tmp_path / "results", cache).returncode == 0  # the gate is the judge
    trial = judge(name, 1, mutant, read_side(baseline), tmp_path / "results" / "ci")
    audited = name in ("future_leak", "residual_098")  # the other passes, such as prefix trees, differ from whole rows
    assert trial.status == (4 if audited else 1), trial.findings
    assert trial.findings and trial.mutant == mutant.words


def test_regression_that_drops_a_gradient_is_refused_before_training(cache: Path, tmp_path: Path):
    inject(next(mutant for mutant in DETERMINISTIC if mutant.name == "predictor_untrained"), tmp_path)
    done = study(tmp_path, tmp_path / "results", cache)
    assert done.returncode == 2 and "counts a gradient that is not computed" in done.stderr
