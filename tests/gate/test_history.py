"""The history: appended to by many, read back whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gate_studies import change, change_ci, write_study
from report_records import make_record

from bench.errors import UserError
from bench.gate.__main__ import main
from bench.gate.compare import compare
from bench.gate.history import FILE, NOTES, Row, append, note_of, read, read_notes, recent_values, row_of
from bench.gate.load import read_side


def row(number: int = 0, **changes) -> Row:
    parts = {
        "created": f"2026-11-01T00:00:{number % 60:02}+00:00", "study": "ci", "machine": "0a1b2c3d",
        "machine_name": "a CPU, 1 thread", "verdict": "fine", "figures": {"mod quality.val_loss_nats": [1.5 + number]},
    }  # fmt: skip
    return Row(**(parts | changes))


def test_read_returns_appended_rows_oldest_first(tmp_path: Path):
    rows = [row(number) for number in (2, 0, 1)]
    for each in rows:
        append(each, tmp_path)
    found, problems = read(tmp_path)
    assert (found, problems) == ([rows[1], rows[2], rows[0]], [])


WRITER = """
import sys
from pathlib import Path
from bench.gate.history import Row, append
folder, writer, lines = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(lines):
    figures = {f"mod figure.{n}": [float(number), 0.0, 1.0] for n in range(400)}
    append(Row(created="2026", commit=f"{writer}-{number}", study="ci", machine="m", machine_name="n", verdict="fine",
               figures=figures), folder)
    print(number, flush=True)
"""


def test_append_by_concurrent_writers_loses_nothing(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(n), "25"],
                                stdout=subprocess.DEVNULL) for n in range(4)]  # fmt: skip
    assert [writer.wait() for writer in writers] == [0] * 4
    found, problems = read(tmp_path)
    assert problems == []
    assert {each.commit for each in found} == {f"{writer}-{number}" for writer in range(4) for number in range(25)}


def test_append_after_a_killed_writer_loses_at_most_its_line(tmp_path: Path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "killed", "100000"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 5:
            os.kill(writer.pid, signal.SIGKILL)
            break
    writer.wait()
    written = len(read(tmp_path)[0])
    assert written >= 6
    append(row(), tmp_path)
    assert len(read(tmp_path)[0]) == written + 1


def test_append_after_a_torn_line_ends_it(tmp_path: Path):
    append(row(1), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[: len(whole) // 2])
    append(row(2), tmp_path)
    found, problems = read(tmp_path)
    assert [each.figures["mod quality.val_loss_nats"] for each in found] == [[2.5], [3.5]]
    assert len(problems) == 1 and "line 2" in problems[0]


def test_read_of_merged_branches_keeps_every_row_once(tmp_path: Path):
    append(row(1), tmp_path)
    common = (tmp_path / FILE).read_text(encoding="utf-8")
    ours, theirs = (json.dumps(row(n).model_dump(exclude_none=True)) + "\n" for n in (3, 2))
    (tmp_path / FILE).write_text(common + ours + common + theirs, encoding="utf-8")
    assert [each.created[-8:-6] for each in read(tmp_path)[0]] == ["01", "02", "03"]


def test_read_skips_newer_and_invalid_rows_by_name(tmp_path: Path):
    append(row(1), tmp_path)
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write('{"schema_version": 4}\n[1, 2]\nnonsense\n\n{"schema_version": 1}\n')
    found, problems = read(tmp_path)
    assert len(found) == 1
    assert [problem.split("line ")[1][0] for problem in problems] == ["2", "3", "4", "6"]
    assert "schema version 4 is newer" in problems[0]


def test_read_accepts_rows_of_the_first_schema(tmp_path: Path):
    old = row(1, schema_version=1).model_dump(exclude_none=True, exclude={"broken"})
    (tmp_path / FILE).write_text(json.dumps(old) + "\n", encoding="utf-8")
    found, problems = read(tmp_path)
    assert (found[0].schema_version, found[0].broken, problems) == (1, [], [])


def test_read_names_a_second_row_of_an_id_unless_equal(tmp_path: Path):
    for each in (row(1, id="one"), row(1, id="one"), row(2, id="one"), row(3, id="two")):
        append(each, tmp_path)
    found, problems = read(tmp_path)
    assert [each.figures["mod quality.val_loss_nats"] for each in found] == [[2.5], [4.5]]
    assert problems == [f"{tmp_path / FILE}, line 3: same id as line 1 but other content; skipped."]


@pytest.mark.parametrize("numbers", ["[]", "[1.0, 2.0]", "[1, 2, 3, 4]", '["1.5"]', "[NaN]", "[1e999]", "null", "1.5"])
def test_read_skips_rows_with_impossible_figures(tmp_path: Path, numbers: str):
    append(row(1), tmp_path)
    bad = json.dumps(row(2).model_dump(exclude_none=True)).replace("[3.5]", numbers)
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write(bad + "\n")
    found, problems = read(tmp_path)
    assert len(found) == 1 and len(problems) == 1 and "line 2" in problems[0]


def test_history_keeps_figures_to_nine_digits(tmp_path: Path, capsys):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record)
    for folder in (base, now):
        change(folder, "mod-seed0", quality__val_loss_nats=2.5223276794757825, quality__val_loss_nats_stderr=None)
    assert main([str(base), str(now), "--history", str(tmp_path / "history")]) == 0
    assert read(tmp_path / "history")[0][0].figures["mod quality.val_loss_nats"] == [2.52232768]


def test_read_without_a_history_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path)


def test_gate_appends_its_verdict(tmp_path: Path, capsys):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record, seed=3)
    change(now, "mod-seed0", quality__val_loss_nats=2.5)
    words = [str(base), str(now), "--history", str(tmp_path / "history"), "--link", "https://ci.example/7"]
    assert main(words) == 1
    assert main(words) == 1
    found, _ = read(tmp_path / "history")
    assert len(found) == 2 and found[0].id != found[1].id
    assert (found[0].verdict, found[0].commit, found[0].link) == ("regressed", "abc1234", "https://ci.example/7")
    assert found[0].findings == ["mod quality.val_loss_nats: regressed"]
    value, low, high = found[0].figures["mod quality.val_loss_nats"]
    assert (value, round(high - low, 4)) == (2.5, round(2 * 1.959964 * 0.02, 4))
    assert len(found[0].figures["mod speed.train_step_over_dense"]) == 3


def test_row_of_an_unreadable_side_takes_the_baselines_machine(tmp_path: Path, capsys):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "out", record)
    (now / "ci.json").write_text((now / "ci.json").read_text(encoding="utf-8")[:200], encoding="utf-8")
    assert main([str(base), str(base), "--history", str(tmp_path / "history")]) == 0
    assert main([str(base), str(now), "--history", str(tmp_path / "history")]) == 4
    (whole, cut), problems = read(tmp_path / "history")
    assert problems == []
    assert (cut.study, cut.machine, cut.machine_name) == ("ci", whole.machine, whole.machine_name)
    assert whole.machine_name == "a CPU, 1 thread"
    age = datetime.now(UTC) - datetime.fromisoformat(cut.created)
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert (cut.verdict, cut.figures, whole.broken) == ("broken", {}, [])
    assert len(cut.broken) == 1 and cut.broken[0].startswith("current: ") and "not a complete JSON" in cut.broken[0]


def test_row_of_a_broken_but_readable_side_names_itself(tmp_path: Path, capsys):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "out", record, place="another CPU")
    change(now, "mod-seed0", causality__passed=False)
    assert main([str(base), str(now), "--history", str(tmp_path / "history")]) == 4
    found = read(tmp_path / "history")[0][0]
    assert (found.created, found.machine_name) == ("2026-11-01T00:00:00+00:00", "another CPU, 1 thread")
    assert [line.split(":")[:2] for line in found.broken] == [["current", " mod"]]


def test_gate_with_an_unwritable_history_is_wrong_use(tmp_path: Path, capsys):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record)
    (tmp_path / "history").write_text("a file", encoding="utf-8")
    assert main([str(base), str(now), "--history", str(tmp_path / "history")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_row_holds_the_subject_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *name, "commit", "-q", "--allow-empty", "-m", "Say “—”\n\nmore"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    base, now = (write_study(tmp_path / name, make_record(name="ci")) for name in ("base", "now"))
    subjects = []
    for each in (commit[:12], f"{commit[:12]}-dirty", "0" * 12, "--help"):
        change_ci(now, git_commit=each)
        subjects.append(row_of(compare(read_side(base), read_side(now)), None).subject)
    assert subjects == ["Say “—”", None, None, None]


def test_recent_values_are_of_the_same_machine_and_end_with_the_current(tmp_path: Path):
    base, now = (write_study(tmp_path / name, make_record(name="ci")) for name in ("base", "now"))
    verdict = compare(read_side(base), read_side(now))
    assert recent_values(verdict, tmp_path) == {}
    own = row_of(verdict, None)
    for number in range(20):
        append(row(number, machine=own.machine), tmp_path)
        append(row(number + 100), tmp_path)
    values = recent_values(verdict, tmp_path)["mod", "quality.val_loss_nats"]
    assert values == [1.5 + number for number in range(9, 20)] + [
        verdict.current.figures["mod", "quality.val_loss_nats"].value
    ]


def test_markdown_of_the_command_draws_the_history(tmp_path: Path):
    base, now = (write_study(tmp_path / name, make_record(name="ci")) for name in ("base", "now"))
    words = [str(base), str(now), "--history", str(tmp_path / "history"), "--markdown", str(tmp_path / "gate.md")]
    assert main(words) == 0
    change(now, "mod-seed0", quality__val_loss_nats=2.5)
    assert main(words) == 1
    assert "| last runs |" in (text := (tmp_path / "gate.md").read_text(encoding="utf-8")) and "| ▁█ |" in text


def test_notes_are_found_by_the_start_of_a_commit(tmp_path: Path):
    assert read_notes(tmp_path) == {}
    (tmp_path / NOTES).write_text('{"c0ffee123456": "new image"}', encoding="utf-8")
    notes = read_notes(tmp_path)
    commits = ("c0ffee123456789", "c0ffee1", "c0ffee123456-dirty", "c0ffee2", "", None)
    assert [note_of(commit, notes) for commit in commits] == ["new image"] * 3 + [None] * 3


@pytest.mark.parametrize("text", ["", "[]", '{"c0ffee1": 1}', '{"c0": "short"}', '{"c0ffee1": "a"', "[" * 100_000])
def test_notes_of_another_form_are_refused(tmp_path: Path, text: str):
    (tmp_path / NOTES).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"annotations\.json is not an object of commits"):
        read_notes(tmp_path)
