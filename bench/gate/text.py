"""The verdict as text for people: in a terminal, and as GitHub-flavoured Markdown for a comment or a step summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.formats import aligned
from bench.gate.compare import Finding, Verdict, off_pace
from bench.gate.load import Side, title

COLUMNS = ("", "method", "figure", "baseline", "now", "change", "certainty")
MARKER = "<!-- bench-gate -->"  # lets a workflow find its own comment
_SHOWN = 30
_LONGEST = 30_000  # so that two fit into a comment, which may have 65,536 characters
_CELL = 200  # characters of a cell, before escaping, which makes at most five of each
_LINES = 10


def terminal(verdict: Verdict) -> str:
    """The findings, the worst first, and one sentence at the end."""
    lines = [f"broken: {line}" for line in verdict.broken]
    rows = [_cells(finding) for finding in verdict.findings[:_SHOWN]]
    if rows:
        lines += ["", *aligned([list(COLUMNS), *rows]), ""]
    if len(verdict.findings) > _SHOWN:
        lines.append(f"and {len(verdict.findings) - _SHOWN} more; --json FILE writes all.")
    lines += [f"note: {note}" for note in verdict.notes]
    return "\n".join(plain(line) for line in [*lines, summary(verdict)])


def _cells(finding: Finding) -> list[str]:
    """A row under COLUMNS."""
    name = title(finding.method)
    return [finding.kind, name, finding.words, finding.was, finding.now, finding.change, finding.certainty]


def summary(verdict: Verdict) -> str:
    """The verdict in one sentence, with the number of figures compared; first, if speed was not compared."""
    judged = off_pace(verdict.baseline, verdict.current) is None
    unjudged = "" if judged else "speed: not compared (the machine ran at another pace); "
    kinds = [finding.kind for finding in verdict.findings]
    counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    counted = f"{verdict.compared:,} figures of {verdict.current.study} compared"
    if verdict.broken:
        n = len(verdict.broken)
        return f"{unjudged}BROKEN: {n} unreliable record{'s' if n > 1 else ''}; {counted}."
    outcome = "REGRESSED" if verdict.status else "fine"
    return f"{unjudged}{outcome}: {counted}; {', '.join(counts) or 'no change'}."


def plain(line: str) -> str:
    """`line` without control characters: names come from files, and those must not reach the terminal."""
    return "".join(character if character.isprintable() else "�" for character in line)


def markdown(verdict: Verdict) -> str:
    """Heading, sentence, findings worst first, improvements folded; never longer than a comment may be."""
    heading = {"fine": "✅ fine", "regressed": "❌ regressed", "broken": "⛔ broken"}[verdict.word]
    what = "bench" if verdict.current.whole else "bench, time and memory"
    parts = [f"{MARKER}\n## {what}: {heading}", _inert(summary(verdict)), _sides(verdict)]
    if verdict.broken:
        parts.append(_list(verdict.broken))
    notes = _list(verdict.notes)
    failing = [finding for finding in verdict.findings if finding.fails]
    others = [finding for finding in verdict.findings if not finding.fails]
    room = _LONGEST - sum(map(len, parts)) - len(notes) - 2_000
    if failing:
        text, room = _table(failing, room)
        parts.append(text)
    if failing and verdict.current.whole:
        sides = f"{_code(verdict.baseline)} {_code(verdict.current)}"
        parts.append(f"Intended? Accept it as the new baseline: `python -m bench.gate {sides} --accept`")
    if others:
        text, room = _table(others, room)
        parts.append(f"<details><summary>{len(others):,} improved or new</summary>\n\n{text}\n\n</details>")
    return "\n\n".join([*parts, *([notes] if notes else [])]) + "\n"


def _sides(verdict: Verdict) -> str:
    sides = [
        f"{name} {side.commit or '(unknown commit)'} on {side.machine_name}"
        for name, side in (("baseline", verdict.baseline), ("now", verdict.current))
    ]
    return _inert("; ".join(sides))


def _list(lines: Sequence[str]) -> str:
    more = [f"- … and {len(lines) - _LINES:,} more."] if len(lines) > _LINES else []
    return "\n".join([*(f"- {_inert(line)}" for line in lines[:_LINES]), *more])


def _table(findings: Sequence[Finding], room: int) -> tuple[str, int]:
    """As many rows as fit, with a count of the others; and the remaining room."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for number, finding in enumerate(findings):
        line = f"| {' | '.join(_inert(cell) for cell in _cells(finding))} |"
        if room < len(line):
            lines.append(f"\n… and {len(findings) - number:,} more.")
            break
        lines.append(line)
        room -= len(line) + 1
    return "\n".join(lines), room


def _inert(text: str) -> str:
    """`text` on one line, in which HTML, tables, links, emphasis, code and mentions stay plain characters.

    GitHub turns shown addresses and names into links and mentions; a zero-width character prevents that.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_CELL]
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~!#])", r"\\\1", text)
    return re.sub(r"(@|://|www\.)", "\\1\u200b", text)


def _code(side: Side) -> str:
    return re.sub(r"[^\w./-]", "_", str(side.folder))[:_CELL]
