"""The experiment on the gate: its committed studies under the rules of today, and how studies are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.gate.load import read_side
from tools.gate_validation.archive import keep, opened, pack, pieces
from tools.gate_validation.page import missed
from tools.gate_validation.proof import FILE, load_proof
from tools.gate_validation.run import all_trials, judge, judge_all

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "gate_proof"


def test_the_rules_of_today_judge_the_committed_studies_as_the_record_says(tmp_path: Path):
    """Of 20 planted regressions, 10 slow-downs and 100 unchanged reruns: every bar is met."""
    (tmp_path / "studies.tar.xz").write_bytes((COMMITTED / "studies.tar.xz").read_bytes())
    proof = load_proof(COMMITTED / FILE)
    found = judge_all(dict(all_trials(100)), opened(tmp_path))
    assert [(trial.name, trial.status, trial.slower) for trial in found] == [
        (trial.name, trial.status, trial.slower) for trial in proof.trials
    ]
    assert len(found) == 130 and not missed(proof)


def study_files(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_packed_studies_come_back_as_they_were_and_pack_to_the_same_bytes(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    studies = opened(first)
    keep(COMMITTED.parent / "ci", studies / "1" / "baseline")
    keep(None, studies / "1" / "rerun_007")
    assert [path.name for path in pieces(studies)] == ["1"]
    pack(first)
    second.mkdir()
    (second / "studies.tar.xz").write_bytes((first / "studies.tar.xz").read_bytes())
    assert study_files(opened(second)) == study_files(studies)
    pack(second)
    assert (second / "studies.tar.xz").read_bytes() == (first / "studies.tar.xz").read_bytes()


def test_an_archive_that_is_cut_short_is_told(tmp_path: Path):
    whole = (COMMITTED / "studies.tar.xz").read_bytes()
    (tmp_path / "studies.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="studies.tar.xz"):
        opened(tmp_path)
    assert not (tmp_path / "studies").exists()


def test_the_speed_of_a_rerun_is_judged_at_any_pace_and_that_of_a_plant_as_the_gate_would(tmp_path: Path):
    """So that no bar on false alarms is met by looking away."""
    sides = {}
    for name, seconds, slower in (("baseline", 0.02, 1.0), ("study", 0.04, 1.5)):
        sides[name] = tmp_path / name
        shutil.copytree(COMMITTED.parent / "ci", sides[name])
        content = json.loads((sides[name] / "ci.json").read_text(encoding="utf-8"))
        samples = content["speed"]["mod"]["train_step_over_dense"]
        content["speed"]["mod"]["train_step_over_dense"] = [slower * sample for sample in samples]
        content["encoder_seconds"] = [seconds] * 8
        (sides[name] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    side, study = read_side(sides["baseline"]), sides["study"]
    assert judge("rerun_000", 1, None, side, study).slower
    assert not judge("slower_all_1", 1, dict(all_trials(1))["slower_all_1"], side, study).slower
