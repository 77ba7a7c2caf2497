"""The dashboard as it is written to a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from gate_histories import history

from bench.errors import UserError
from bench.gate.dashboard import build
from bench.gate.dashboard.__main__ import main
from bench.gate.dashboard.recent_changes import recent_changes
from bench.gate.dashboard.series import all_series
from bench.gate.history import append

AROUND = ("assets", "index.html")  # of the site that a dashboard is a part of


def test_series_have_change_points_per_machine():
    found = {(series.method, series.figure): series for series in all_series(history())}
    loss = found["mod", "quality.val_loss_nats"]
    assert [(step.row, step.before, step.after) for step in loss.steps] == [(8, 2.0, 2.01), (9, 2.0, 2.01)]
    assert loss.worse(loss.steps[0]) is True
    assert found["dense", "quality.val_loss_nats"].steps == []


def test_series_of_two_machine_speeds_have_no_change_point():
    rows = history()
    for row in rows:
        row.figures["mod quality.val_loss_nats"] = [1.0 if row.machine == "aaaa" else 3.0]
    assert all(not series.steps for series in all_series(rows))


def test_overview_shows_each_machine_and_recent_changes(tmp_path: Path):
    rows = history()
    rows[-1] = rows[-1].model_copy(
        update={"verdict": "regressed", "findings": ["mod quality.val_loss_nats: regressed"]}
    )
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    assert page.count('class="card regressed"') == 1 and page.count('class="card fine"') == 1
    assert "MoD, validation loss, nats/token: regressed" in page
    assert page.count('<td class="worse" role="cell">worse</td>') == 1 and "+0.5 %" in page
    assert ">CPU A; CPU B<" in page  # one entry for both


def test_overview_card_of_a_broken_run_says_why(tmp_path: Path):
    rows = history()
    rows[-1].verdict, rows[-1].broken = (
        "broken",
        ["current: <b>/ci.json is cut short", *map("baseline: {}".format, range(6))],
    )
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    assert page.count("Unreliable records") == 1
    assert "<li>current: &lt;b&gt;/ci.json is cut short</li>" in page
    assert "<li>baseline: 4</li>" in page and "<li>baseline: 5</li>" not in page and "<li>and 1 more</li>" in page


def test_overview_folds_machines_inactive_for_thirty_days(tmp_path: Path):
    rows = history()
    for machine, created in (("old", "2026-10-12T23:59:59+00:00"), ("late", "2026-10-13T00:00:00+00:00")):
        late = {"id": machine, "machine": machine, "machine_name": f"CPU {machine}", "created": created}
        rows.insert(0, rows[0].model_copy(update=late | {"verdict": "regressed"}))
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    seen, folded = page[: page.index("</section>")].split("<details>")
    assert [re.findall(r"<p>(CPU .+)</p>", part) for part in (seen, folded)] == [
        ["CPU B", "CPU A", "CPU late"],
        ["CPU old"],
    ]
    assert "<summary>Inactive machines: 1</summary>" in folded


@pytest.mark.parametrize("created", ["", "2026", "0001-01-01T00:00:00+00:00"])
def test_overview_without_readable_times_folds_nothing(tmp_path: Path, created: str):
    page = build(history(created=created), tmp_path / "dashboard").read_text(encoding="utf-8")
    assert page.count('class="card fine"') == 2 and "Inactive machines" not in page


def test_recent_changes_up_and_down_are_separate_entries():
    rows = history(60, created="2026-11-01T00:00:00+00:00")
    for number, row in enumerate(rows):
        row.figures = {"mod quality.val_loss_nats": [2.0 if number < 20 else 2.2 if number < 40 else 2.1]}
    moved = recent_changes(rows, all_series(rows))
    assert [(each.kind, each.size, [row.machine for row in each.rows]) for each in moved] == [
        ("worse", "+10 %", ["aaaa", "bbbb"]),
        ("better", "−4.5 %", ["aaaa", "bbbb"]),
    ]


@pytest.mark.parametrize(
    ("after", "size"), [(2.199, "+9.9 %"), (2.246, "+12 %"), (7.0, "+250 %"), (0.0, "−100 %"), (2e4, "+999,900 %")]
)
def test_recent_changes_of_ten_percent_are_whole_percents(after: float, size: str):
    rows = history(machine="aaaa")
    for number, row in enumerate(rows):
        row.figures = {"mod quality.val_loss_nats": [2.0 if number < 6 else after]}
    assert [each.size for each in recent_changes(rows, all_series(rows))] == [size]


def test_series_of_two_studies_do_not_mix():
    rows = history()
    for row in rows[6:]:
        row.study, row.figures["dense quality.val_loss_nats"] = "nightly", [3.0]
    found = {series.key: series for series in all_series(rows) if series.figure == "quality.val_loss_nats"}
    assert list(found) == ["ci dense", "ci mod", "nightly dense", "nightly mod"]
    assert found["ci dense"].values == [2.1] * 6 and not found["ci dense"].steps


def test_series_with_an_empty_run_name_no_second_study():
    rows = history()
    rows[-1].study, rows[-1].figures = "out", {}
    assert {series.key for series in all_series(rows)} == {"dense", "mod"}


def test_series_of_a_method_name_with_spaces_are_found(tmp_path: Path):
    rows = history(findings=["mod, seed 0 quality.val_loss_nats: regressed", "mod, seed 0 everything: vanished"])
    for row in rows:
        row.figures = {"mod, seed 0 quality.val_loss_nats": [2.0]}
    (series,) = all_series(rows)
    assert (series.method, series.words, series.group) == ("mod, seed 0", "validation loss, nats/token", "Quality")
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    assert ">MoD, seed 0, validation loss, nats/token: regressed</a>" in page
    assert "<li>MoD, seed 0, everything: vanished</li>" in page


def test_overview_distinguishes_machines_of_one_name(tmp_path: Path):
    page = build(history(machine_name="CPU"), tmp_path / "dashboard").read_text(encoding="utf-8")
    assert "CPU (aaaa); CPU (bbbb)" in page


def test_build_fetches_nothing_from_elsewhere(tmp_path: Path):
    build(history(link=None), tmp_path / "dashboard")
    for path in (tmp_path / "dashboard").rglob("*"):
        if path.is_file():
            addresses = re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8"))
            assert set(addresses) <= {"https://github.com/leeoniya/uPlot"}, path  # a comment


def test_build_twice_gives_the_same_bytes_and_replaces_the_old(tmp_path: Path):
    rows = history()
    build(rows[:4], tmp_path / "one" / "dashboard")
    for folder in ("one", "two"):
        build(rows, tmp_path / folder / "dashboard")
    one, two = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
                for n in ("one", "two"))  # fmt: skip
    assert one == two


def test_build_removes_only_what_a_killed_build_left(tmp_path: Path):
    site, own = tmp_path / "site[1]", os.getpid()
    build(history(4), site)
    killed, running, mine = (tmp_path / f".site[1].{name}" for name in ("1.new", "2.new", "backup.new"))
    aside, here = tmp_path / ".site[1].3.old", [tmp_path / f".site[1].{own}.{end}" for end in ("new", "old")]
    for folder in (killed, running, mine, aside, *here):
        folder.mkdir()
        (folder / "index.html").write_text("half", encoding="utf-8")
    for folder in (killed, mine, aside):
        os.utime(folder, (0, 0))
    build(history(), site)
    assert {path.name for path in tmp_path.iterdir()} == {running.name, mine.name, site.name, *AROUND}


def test_build_keeps_a_site_set_aside_until_there_is_another(tmp_path: Path):
    aside = tmp_path / ".site.3.old"
    aside.mkdir()
    os.utime(aside, (0, 0))
    build(history(), tmp_path / "site")
    assert aside.exists()


@pytest.mark.parametrize("name", ["notes.txt", "data/mine.csv", "data/rows.js.bak", "data/own/1.js"])
def test_build_over_foreign_files_is_refused(tmp_path: Path, name: str):
    mine = build(history(), tmp_path / "dashboard").parent / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"it holds {name.removesuffix('/1.js')}, which is not part of a")):
        build(history(6), tmp_path / "dashboard")
    assert contents(tmp_path) == before


def test_build_over_a_file_called_data_is_refused(tmp_path: Path):
    (tmp_path / "data").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="Not a directory"):
        build(history(), tmp_path)
    assert contents(tmp_path) == {tmp_path / "data": b"mine"}


def test_build_that_fails_keeps_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(history(), tmp_path / "dashboard")
    before = contents(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        build(history(6), tmp_path / "dashboard")
    assert contents(tmp_path) == before


def test_build_with_a_failing_rename_keeps_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(history(), tmp_path / "dashboard")
    before, rename = contents(tmp_path), os.rename

    def refused(source: Path, target: Path) -> None:
        if source.suffix == ".new":
            raise OSError(1, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr("os.rename", refused)
    with pytest.raises(UserError, match="not permitted"):
        build(history(6), tmp_path / "dashboard")
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_command_reports_missing_and_broken_input(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 2
    (tmp_path / "history.jsonl").write_text("\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 3
    append(history()[0], tmp_path)
    (tmp_path / "history.jsonl").open("a", encoding="utf-8").write("torn\n")
    assert main([str(tmp_path), "--reports", str(tmp_path / "reports")]) == 0
    assert "skipped" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([str(tmp_path), "--reports", str(tmp_path / "file")]) == 2


def test_build_replaces_the_site_of_an_older_bench(tmp_path: Path):
    site = build(history(), tmp_path / "dashboard").parent
    (site / "vendor").mkdir()
    older = [site / name for name in ("theme.js", "reading.js", "vendor/uPlot.min.css", "vendor/LICENSE")]
    for path in older:
        path.write_text("old", encoding="utf-8")
    build(history(), site)
    assert not any(path.exists() for path in (*older, site / "vendor"))
    assert (tmp_path / "assets" / "vendor" / "uPlot.min.css").exists()
