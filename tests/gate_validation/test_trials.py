"""The validation of the gate: the committed studies under the current rules, and how studies are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.gate.load import read_side
from tools.gate_validation.__main__ import main
from tools.gate_validation.archive import batches, keep, pack, unpacked
from tools.gate_validation.page import all_met
from tools.gate_validation.record import FILE, load_validation
from tools.gate_validation.trials import all_trials, judge, judge_all

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "gate_validation"


def test_judge_all_on_committed_studies_gives_the_recorded_verdicts(tmp_path: Path):
    """20 injected regressions, 10 slow-downs and 100 unchanged re-runs: every target is met."""
    (tmp_path / "studies.tar.xz").write_bytes((COMMITTED / "studies.tar.xz").read_bytes())
    validation = load_validation(COMMITTED / FILE)
    found = judge_all(dict(all_trials(100)), unpacked(tmp_path))
    assert [(trial.name, trial.status, trial.slower) for trial in found] == [
        (trial.name, trial.status, trial.slower) for trial in validation.trials
    ]
    assert len(found) == 130 and all_met(validation)


def study_files(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_pack_of_studies_round_trips_to_the_same_bytes(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    studies = unpacked(first)
    keep(COMMITTED.parent / "ci", studies / "1" / "baseline")
    keep(None, studies / "1" / "rerun_007")
    assert [path.name for path in batches(studies)] == ["1"]
    pack(first)
    second.mkdir()
    (second / "studies.tar.xz").write_bytes((first / "studies.tar.xz").read_bytes())
    assert study_files(unpacked(second)) == study_files(studies)
    pack(second)
    assert (second / "studies.tar.xz").read_bytes() == (first / "studies.tar.xz").read_bytes()


def test_unpacked_truncated_archive_is_an_error(tmp_path: Path):
    whole = (COMMITTED / "studies.tar.xz").read_bytes()
    (tmp_path / "studies.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="studies.tar.xz"):
        unpacked(tmp_path)
    assert not (tmp_path / "studies").exists()


def test_judge_on_a_busy_machine_judges_speed_of_reruns_only(tmp_path: Path):
    """So that no false positive goes uncounted; a slow-down is judged as the gate would."""
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


def test_command_pages_only_writes_the_page_from_the_record(tmp_path: Path, capsys):
    folder = tmp_path / "results" / "gate_validation"
    folder.mkdir(parents=True)
    shutil.copyfile(COMMITTED / FILE, folder / FILE)
    words = ["--pages-only", "--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports")]
    assert main(words) == 0
    assert "| injected regressions caught | 20 of 20 | at least 20 of 20 | met |" in (
        tmp_path / "reports" / "gate_validation" / "report.md"
    ).read_text(encoding="utf-8")
    (folder / FILE).write_text("{", encoding="utf-8")
    assert main(words) == 2
    assert "not a complete JSON file" in capsys.readouterr().err


def test_command_with_no_reruns_is_wrong_use(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--reruns", "0"])
    assert stopped.value.code == 2 and "at least 1" in capsys.readouterr().err
