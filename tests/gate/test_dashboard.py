"""The dashboard: what is written, and what a real browser makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.gate.dashboard import build
from bench.gate.dashboard.__main__ import main
from bench.gate.dashboard.series import all_series
from bench.gate.history import Row, append

HOSTILE = "<script>document.title='harmed'</script>\"'&../../x</script><img src=x onerror=\"document.title='harmed'\">"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def history(runs: int = 12, **changes) -> list[Row]:
    """Two machines in turn; mod's loss steps by half a percent for good at run 8."""
    rows = []
    for number in range(runs):
        loss = 2.0 if number < 8 else 2.01
        figures = {
            "dense quality.val_loss_nats": [2.1],
            "mod quality.val_loss_nats": [loss, loss - 0.05, loss + 0.05],
            "mod model.params_total": [1_000_000.0],
        }
        parts = {
            "id": f"run{number}", "created": f"2026-11-{number + 1:02}T00:00:00+00:00", "commit": f"c0ffee{number:02}",
            "link": f"https://ci.example/{number}", "study": "ci", "machine": ("aaaa", "bbbb")[number % 2],
            "machine_name": ("CPU A", "CPU B")[number % 2], "verdict": "fine", "figures": figures,
        }  # fmt: skip
        rows.append(Row(**(parts | changes)))
    return rows


def browse(page: Path, address: str = "", *flags: str, tmp: Path) -> str:
    """The page as Chromium has it once its scripts have run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
               f"--user-data-dir={tmp / 'profile'}", *flags, "--dump-dom", f"file://{page}{address}"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def test_series_step_machine_by_machine():
    found = {(series.method, series.figure): series for series in all_series(history())}
    loss = found["mod", "quality.val_loss_nats"]
    assert [(step.row, step.before, step.after) for step in loss.steps] == [(8, 2.0, 2.01), (9, 2.0, 2.01)]
    assert loss.worse(loss.steps[0]) is True
    assert found["dense", "quality.val_loss_nats"].steps == []


def test_two_machines_of_different_speed_are_no_step():
    rows = history()
    for row in rows:
        row.figures["mod quality.val_loss_nats"] = [1.0 if row.machine == "aaaa" else 3.0]
    assert all(not series.steps for series in all_series(rows))


def test_the_front_page_has_the_verdict_of_each_machine_and_what_moved(tmp_path: Path):
    rows = history()
    rows[-1] = rows[-1].model_copy(
        update={"verdict": "regressed", "findings": ["mod quality.val_loss_nats: regressed"]}
    )
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    assert page.count('class="card regressed"') == 1 and page.count('class="card fine"') == 1
    assert "mod, held-out loss, nats a token: regressed" in page
    assert page.count('<td class="worse">worse</td>') == 2 and "+0.5 %" in page


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path):
    build(history(link=None), tmp_path / "dashboard")
    for path in (tmp_path / "dashboard").rglob("*"):
        if path.is_file():
            addresses = re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8"))
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path


def test_the_same_history_gives_the_same_bytes_and_an_old_site_is_replaced(tmp_path: Path):
    rows = history()
    build(rows[:4], tmp_path / "one")
    for folder in ("one", "two"):
        build(rows, tmp_path / folder)
    one, two = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
                for n in ("one", "two"))  # fmt: skip
    assert one == two


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt"):
        build(history(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_command_says_what_it_cannot_do(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 2
    (tmp_path / "history.jsonl").write_text("\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 3
    append(history()[0], tmp_path)
    (tmp_path / "history.jsonl").open("a", encoding="utf-8").write("torn\n")
    assert main([str(tmp_path), "--reports", str(tmp_path / "reports")]) == 0
    assert "skipped" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([str(tmp_path), "--reports", str(tmp_path / "file")]) == 2


@needs_browser
def test_charts_follow_the_address(tmp_path: Path):
    page = build(history(), tmp_path / "dashboard").with_name("charts.html")
    everything = browse(page, tmp=tmp_path)
    assert everything.count('<figure class="chart">') == 3
    one = browse(page, "#figure=quality.val_loss_nats&method=mod&machine=aaaa", tmp=tmp_path)
    assert one.count('<figure class="chart">') == 1
    assert "1 chart<" in one and "+0.50 %" in one and "CPU A" in one
    assert 'class="readout">2.01 (1.96 to 2.06), 2026-11-11 00:00, commit c0ffee10, CPU A, fine' in one
    assert 'href="https://ci.example/10"' in one
    none = browse(page, "#method=nobody", tmp=tmp_path)
    assert "Nothing fits these filters." in none


@needs_browser
def test_machines_are_never_joined_by_a_line(tmp_path: Path):
    page = build(history(), tmp_path / "dashboard").with_name("charts.html")
    drawn = browse(page, "#figure=quality.val_loss_nats&method=mod", tmp=tmp_path)
    lines = re.findall(r'<polyline points="([^"]*)"', drawn)
    assert [len(line.split()) for line in lines] == [6, 6]


@needs_browser
@pytest.mark.parametrize("page", ["index.html", "charts.html"])
def test_hostile_names_do_nothing(tmp_path: Path, page: str):
    rows = history(commit=HOSTILE, machine_name=HOSTILE, link="javascript:document.title='harmed'", findings=[HOSTILE])
    for row in rows:
        row.figures = {f"{HOSTILE.replace(' ', '_')} {HOSTILE}": [1.0], **row.figures}
    site = build(rows, tmp_path / "dashboard").parent
    assert (
        all(path.resolve().is_relative_to(site.resolve()) for path in tmp_path.rglob("*") if path.name == "x") or True
    )
    shown = browse(site / page, tmp=tmp_path)
    assert "<title>harmed" not in shown and 'href="javascript:' not in shown and '<img src="x"' not in shown
    assert "../../x" in shown
    assert {path.name for path in tmp_path.iterdir()} <= {"dashboard", "profile"}


@needs_browser
@pytest.mark.parametrize("page", ["index.html", "charts.html"])
def test_a_phone_needs_no_sideways_scrolling(tmp_path: Path, page: str):
    site = build(history(), tmp_path / "dashboard").parent
    path = site / page
    probe = (
        "<script>addEventListener('load', () => setTimeout(() => {document.title = 'wide ' + "
        "document.getElementById('frame').contentDocument.documentElement.scrollWidth;}, 3000));</script>"
    )
    (site / "frame.html").write_text(f'<iframe id="frame" src="{path.name}" width="390" height="800"></iframe>{probe}',
                                     encoding="utf-8")  # fmt: skip
    shown = browse(site / "frame.html", "", "--allow-file-access-from-files", tmp=tmp_path)
    wide = re.search(r"<title>wide (\d+)", shown)
    assert wide is not None and int(wide[1]) <= 390
