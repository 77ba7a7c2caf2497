"""One JSON file of many runs: what is loaded from it is what was in the results folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from report_records import make_record, save

import bench
from bench.report.__main__ import main

ROOT = Path(__file__).parents[2]


def test_export_of_a_study_loads_like_its_folder(tmp_path: Path):
    study, file = ROOT / "results" / "isoflop_cpu", tmp_path / "runs.json"
    assert main([str(study), "--export", str(file)]) == 0
    loaded, original = bench.load(file), bench.load(study)
    frames = [runs.frame().sort_values("run.id").reset_index(drop=True) for runs in (loaded, original)]
    pd.testing.assert_frame_equal(frames[0], frames[1], check_like=True)
    assert len(loaded.points()) == len(original.points()) < len(original)  # without learning-rate sweeps
    assert loaded[0].steps is None


def test_export_names_its_schema_and_the_files_it_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    results, file = tmp_path / "results", tmp_path / "runs.json"
    save(results, make_record("mod", 3))
    (results / "tiny" / "cut").mkdir()
    (results / "tiny" / "cut" / "record.json").write_text("{", encoding="utf-8")
    assert main([str(results), "--export", str(file)]) == 1
    assert "cut" in capsys.readouterr().err
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    assert [(run["method"], run["run"]["seed"], run["causality"]["passed"]) for run in content["runs"]] == [
        ("mod", 3, True)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"schema_version": 99}', "reads up to"), ('{"runs": 1}', "not an export"), ("{", "complete")],
)
def test_load_of_another_file_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    file = tmp_path / "runs.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(bench.UserError, match=message):
        bench.load(file)


def test_export_of_an_empty_folder_is_refused(tmp_path: Path):
    assert main([str(tmp_path), "--export", str(tmp_path / "runs.json")]) == 2
    assert not (tmp_path / "runs.json").exists()
