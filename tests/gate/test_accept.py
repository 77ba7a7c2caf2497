"""Accepting a study as the new baseline: all of it or nothing, and no other file is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gate_studies import change, change_ci, write_study
from report_records import make_record

from bench.gate.__main__ import main


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, Path]:
    """A baseline, and a study that is worse."""
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)
    change(now, "mod-seed0", quality__val_loss_nats=2.5)
    return base, now


def accepted(baseline: Path, current: Path) -> int:
    return main([str(baseline), str(current), "--accept"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_accept_copies_the_study_without_weights(studies, capsys):
    base, now = studies
    wanted = files(now)
    (now / "mod-seed0" / "model.safetensors").write_bytes(b"weights")
    (now / "thesis.tex").write_text("years of work", encoding="utf-8")
    write_study(now / "other", make_record(name="ci"))
    assert main([str(base), str(now)]) == 1
    assert accepted(base, now) == 0
    assert main([str(base), str(now)]) == 0
    assert files(base) == wanted
    assert not [path for path in base.parent.iterdir() if path.name.startswith(".")]


def test_accept_over_a_results_tree_is_refused(tmp_path, studies, capsys):
    base, now = studies
    results = tmp_path / "results"
    write_study(results / "ci", make_record(name="ci"))
    before = files(results)
    (now / "ci.json").unlink()
    assert accepted(results, now) == 2
    assert "ci.json" in capsys.readouterr().err
    assert files(results) == before


@pytest.mark.parametrize("side", [0, 1])
def test_accept_of_a_broken_ci_file_is_refused(studies, capsys, side):
    for folder in studies:
        change(folder, "mod-seed0", quality__val_loss_nats=2.0)
    (studies[side] / "ci.json").write_text("{", encoding="utf-8")
    before = files(studies[0])
    assert accepted(*studies) == (2, 4)[side]
    assert files(studies[0]) == before


@pytest.mark.parametrize(
    "foreign", ["thesis.tex", "notes.json", "mod-seed0/notes.json", "mod-seed0/inner/record.json", "old/record.json"]
)
def test_accept_over_foreign_files_is_refused(studies, capsys, foreign):
    base, now = studies
    path = base / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}", encoding="utf-8")
    before = files(base)
    assert accepted(base, now) == 2
    assert foreign.split("/")[0] in capsys.readouterr().err
    assert files(base) == before


def test_accept_of_a_broken_study_is_refused(studies, capsys):
    base, now = studies
    before = files(base)
    change(now, "mod-seed0", causality__passed=False)
    assert accepted(base, now) == 4
    assert "not accepted" in capsys.readouterr().err
    assert files(base) == before


def test_accept_with_speed_only_is_wrong_use(studies, capsys):
    base, now = studies
    before = files(base)
    with pytest.raises(SystemExit) as stopped:
        main([str(base), str(now), "--accept", "--speed-only"])
    assert stopped.value.code == 2 and files(base) == before


@pytest.mark.parametrize("linked", ["mod-seed0/documents.csv", "mod-seed0"])
def test_accept_of_links_is_refused(tmp_path, studies, capsys, linked):
    base, now = studies
    before = files(base)
    secret = tmp_path / "secret"
    if linked == "mod-seed0":
        (now / linked).rename(secret)
    else:
        secret.write_text("secret", encoding="utf-8")
    (now / linked).symlink_to(secret)
    assert accepted(base, now) == 2
    assert "link" in capsys.readouterr().err and files(base) == before


@pytest.mark.parametrize("harm", ["{", None])
def test_accept_over_a_broken_baseline_replaces_it(studies, capsys, harm):
    base, now = studies
    path = base / "mod-seed0" / "record.json"
    path.unlink() if harm is None else path.write_text(harm, encoding="utf-8")
    assert main([str(base), str(now)]) == 4
    assert accepted(base, now) == 0
    assert files(base) == files(now)


def test_accept_of_nested_studies_is_refused(tmp_path, studies, capsys):
    base, now = studies
    inner = now / "inner"
    base.rename(inner)
    before = files(now)
    for pair in ((now, now), (inner, now), (now, inner)):
        assert accepted(*pair) == 2
    assert files(now) == before


def test_accept_through_a_link_keeps_the_link(tmp_path, studies, capsys):
    base, now = studies
    link = tmp_path / "link"
    link.symlink_to(base, target_is_directory=True)
    assert accepted(link, now) == 0
    assert link.is_symlink() and files(base) == files(now)
    assert accepted(link, base) == 2


@pytest.mark.parametrize("failing", ["base", ".new"])
def test_accept_with_a_failing_rename_keeps_the_baseline(studies, monkeypatch, capsys, failing):
    base, now = studies
    before, rename = files(base), os.rename

    def fail(path: Path, target):
        if failing in (path.name, path.suffix):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(os, "rename", fail)
    assert accepted(base, now) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert files(base) == before
    assert not [path for path in base.parent.iterdir() if path.name.startswith(".")]


def test_accept_that_cannot_restore_names_the_kept_baseline(studies, monkeypatch, capsys):
    base, now = studies
    before, rename = files(base), os.rename

    def fail(path: Path, target):
        if path.suffix in (".new", ".old"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(os, "rename", fail)
    assert accepted(base, now) == 2
    (kept,) = base.parent.glob(".base.*.old")
    assert files(kept) == before and str(kept) in capsys.readouterr().err


def test_accept_of_run_ids_outside_the_study_is_refused(studies, capsys):
    base, now = studies
    before = files(base)
    runs = json.loads((now / "ci.json").read_text(encoding="utf-8"))["runs"]
    for run_id in ("..", "../now/mod-seed0", ".", ""):
        change_ci(now, runs=runs | {"mod": run_id})
        assert accepted(base, now) == 4
    assert files(base) == before
