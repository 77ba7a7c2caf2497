"""The history of a project's figures: one JSON line per run of the gate, only ever appended to.

Writers take a lock and write a line in one call, so they may run concurrently. If a writer is killed within a line, the
next writer ends that line and readers skip it. Lines are independent and carry an id, so two branches' files merge by
keeping the lines of both (`history.jsonl merge=union` in .gitattributes).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat, ValidationError

from bench.errors import UserError
from bench.formats import now
from bench.gate.compare import Verdict
from bench.gate.load import Key
from bench.records.files import StrictModel
from bench.stats.interval import Interval

FILE = "history.jsonl"
NOTES = "annotations.json"
SCHEMA_VERSION = 3
_RECENT = 12  # runs of a sparkline
_DIGITS = 9  # significant digits kept: more than a chart shows, and half the file size

_Value = Annotated[list[FiniteFloat], Field(min_length=1, max_length=1)]
_WithEnds = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]


class Row(StrictModel):
    """One run of the gate."""

    schema_version: int = SCHEMA_VERSION
    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    created: str = Field(description="of the study, ISO 8601, UTC")
    commit: str | None = None
    subject: str | None = Field(None, description="first line of the commit's message")
    link: str | None = Field(None, description="address of the run, such as a CI job")
    study: str
    machine: str = Field(description="fingerprint; speeds are comparable only on equal machines")
    machine_name: str
    verdict: str = Field(description="fine | regressed | broken")
    findings: list[str] = Field([], description="`METHOD FIGURE: KIND`: regressed, changed, vanished or improved")
    broken: list[str] = Field([], description="`SIDE: FAULT` of each unreliable record of a broken verdict")
    figures: dict[str, _Value | _WithEnds] = Field(
        description="`METHOD FIGURE` -> [value], or [value, low, high] with a 95 % interval"
    )


def _row(line: str) -> Row | None:
    """A line as a row, if it is one."""
    try:
        row = Row.model_validate_json(line, strict=True)
    except ValidationError:
        return None
    return row if row.schema_version <= SCHEMA_VERSION else None


def _fault(line: str) -> str:
    """Why a line is no row: written by a newer bench, or not complete."""
    try:
        version = json.loads(line).get("schema_version")
    except (ValueError, AttributeError, RecursionError):
        version = None
    newer = isinstance(version, int) and version > SCHEMA_VERSION
    return f"schema version {version} is newer than this bench" if newer else "not a valid row"


def row_of(verdict: Verdict, link: str | None) -> Row:
    """The current side of a verdict as a row, without figures of broken records or speeds on a busy machine.

    A side that could not be read is assumed to be the baseline's study on the baseline's machine, run now.
    """
    current = verdict.current
    known = current if current.environment is not None else verdict.baseline
    return Row(
        created=current.created or now(),
        commit=current.commit,
        subject=_subject(current.commit),
        link=link,
        study=known.study,
        machine=known.machine,
        machine_name=known.machine_name,
        verdict=verdict.word,
        findings=[
            f"{finding.method} {finding.figure or 'everything'}: {finding.kind}"
            for finding in verdict.findings
            if finding.kind != "new"
        ],
        broken=verdict.broken,
        figures={f"{method} {name}": _numbers(figure) for (method, name), figure in verdict.figures.items()},
    )


def _subject(commit: str | None) -> str | None:
    """The first line of a commit's message, from the checkout that the gate runs in; None if it does not hold it."""
    if not commit or not re.fullmatch(r"[0-9a-f]{7,40}", commit):  # also none of changed code, as in `abc1234-dirty`
        return None
    try:
        words = ["git", "show", "--no-patch", "--format=%s", commit]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()[:200] or None


def method_and_figure(name: str) -> tuple[str, str]:
    """The parts of `METHOD FIGURE`: a method's name may hold a space, a figure's holds none."""
    method, _, figure = name.rpartition(" ")
    return method, figure


def _numbers(figure: Interval) -> list[float]:
    return [float(f"{number:.{_DIGITS}g}") for number in (figure.value, *(figure.ends or ()))]


def append(row: Row, folder: Path) -> None:
    """Add a line to `history.jsonl` in `folder`, completely or not at all, safe for concurrent writers.

    Raises UserError if it cannot be written.
    """
    line = (json.dumps(row.model_dump(exclude_none=True), ensure_ascii=False, allow_nan=False) + "\n").encode()
    path = folder / FILE
    try:
        import fcntl
    except ImportError as error:
        raise UserError("bench.gate --history locks its file by fcntl, which Windows lacks; leave it out.") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, (b"\n" if torn else b"") + line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Choose another --history folder.") from error


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """The rows of a history, oldest first, each once; and a message for every line that cannot be read.

    Raises UserError if there is no history.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. python -m bench.gate --history writes it.") from error
    rows: dict[str, tuple[int, Row]] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            problems.append(f"{path}, line {number}: {_fault(line)}; skipped.")
            continue
        first, kept = rows.setdefault(row.id, (number, row))
        if row != kept:
            problems.append(f"{path}, line {number}: same id as line {first} but other content; skipped.")
    return sorted((row for _, row in rows.values()), key=lambda row: row.created), problems


def recent_values(verdict: Verdict, folder: Path) -> dict[Key, list[float]]:
    """The values of each current figure in the last runs of its study and machine, the current one last.

    Before the current run is appended. Empty without a history.
    """
    if not (folder / FILE).exists():
        return {}
    now = row_of(verdict, None)
    own = [row for row in read(folder)[0] if (row.study, row.machine) == (now.study, now.machine)]
    rows = [*own[1 - _RECENT :], now]
    return {
        method_and_figure(name): [row.figures[name][0] for row in rows if name in row.figures] for name in now.figures
    }


def read_notes(folder: Path) -> dict[str, str]:
    """The annotations of a history, `annotations.json`: a commit, or its first seven digits or more -> a note.

    Empty without that file. Raises UserError if it is not such a file.
    """
    path = folder / NOTES
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict) or not all(isinstance(note, str) and len(key) >= 7 for key, note in notes.items()):
        raise UserError(f"{path} is not an object of commits (seven digits or more) and notes, both text.")
    return notes


def note_of(commit: str | None, notes: Mapping[str, str]) -> str | None:
    """The note on a commit; either may be shortened."""
    own = (commit or "").partition("-")[0]  # as in `abc1234-dirty`
    return next((note for key, note in notes.items() if own and (own.startswith(key) or key.startswith(own))), None)
