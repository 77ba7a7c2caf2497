"""The verdict as GitHub-flavoured Markdown, for a comment on a pull request or a step summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.gate.compare import Finding, Verdict
from bench.gate.load import Side
from bench.gate.terminal import COLUMNS, cells, summary

MARKER = "<!-- bench-gate -->"  # by which a workflow finds its own comment again
_LONGEST = 30_000  # so that two fit into a comment, which may have 65,536 characters
_CELL = 200  # of a name, before characters are escaped, by five each at most
_LINES = 10


def markdown(verdict: Verdict) -> str:
    """Heading, sentence, findings worst first, improvements folded away; never longer than a comment may be."""
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
        parts.append(f"On purpose? `python -m bench.gate {sides} --accept`")
    if others:
        text, room = _table(others, room)
        parts.append(f"<details><summary>{len(others):,} improved or new</summary>\n\n{text}\n\n</details>")
    return "\n\n".join([*parts, *([notes] if notes else [])]) + "\n"


def _sides(verdict: Verdict) -> str:
    told = [
        f"{name} {side.commit or 'of an unknown commit'} on {side.machine_name}"
        for name, side in (("baseline", verdict.baseline), ("now", verdict.current))
    ]
    return _inert("; ".join(told))


def _list(lines: Sequence[str]) -> str:
    more = [f"- … and {len(lines) - _LINES:,} more."] if len(lines) > _LINES else []
    return "\n".join([*(f"- {_inert(line)}" for line in lines[:_LINES]), *more])


def _table(findings: Sequence[Finding], room: int) -> tuple[str, int]:
    """As many rows as there is room for, with a count of the others; and the room that is left."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for number, finding in enumerate(findings):
        line = f"| {' | '.join(_inert(cell) for cell in cells(finding))} |"
        if room < len(line):
            lines.append(f"\n… and {len(findings) - number:,} more.")
            break
        lines.append(line)
        room -= len(line) + 1
    return "\n".join(lines), room


def _inert(text: str) -> str:
    """`text` on one line, in which HTML, tables, links, emphasis, code and mentions stay plain characters.

    GitHub makes links of addresses and mentions of names by what is shown: a character without width keeps it from it.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_CELL]
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~!#])", r"\\\1", text)
    return re.sub(r"(@|://|www\.)", "\\1\u200b", text)


def _code(side: Side) -> str:
    return re.sub(r"[^\w./-]", "_", str(side.folder))[:_CELL]
