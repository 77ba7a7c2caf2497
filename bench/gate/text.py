"""The verdict as text for people: in a terminal, and as GitHub-flavoured Markdown for a comment or a step summary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.formats import aligned
from bench.gate.compare import Finding, Verdict
from bench.gate.families import fold
from bench.gate.load import Key, Side, title

COLUMNS = ("", "method", "figure", "baseline", "now", "change", "certainty")
MARKER = "<!-- bench-gate -->"  # lets a workflow find its own comment
_SHOWN = 30
_LONGEST = 30_000  # so that two fit into a comment, which may have 65,536 characters
_CELL = 200  # characters of a cell, before escaping, which makes at most five of each
_LINES = 10
_BLOCKS, _SPAN = "▁▂▃▄▅▆▇█", 0.01


def terminal(verdict: Verdict) -> str:
    """The findings, the worst first, and one sentence at the end."""
    lines = [f"broken: {line}" for line in verdict.broken]
    rows = [_cells(finding) for finding in verdict.findings[:_SHOWN]]
    if rows:
        lines += ["", *aligned([list(COLUMNS), *rows]), ""]
    if len(verdict.findings) > _SHOWN:
        lines.append(f"and {len(verdict.findings) - _SHOWN} more; --json FILE writes all.")
    lines += [f"note: {note}" for note in [*verdict.notes, *_retime(verdict)]]
    return "\n".join(plain(line) for line in [*lines, summary(verdict)])


def _cells(finding: Finding) -> list[str]:
    """A row under COLUMNS."""
    name = title(finding.method)
    return [finding.kind, name, finding.words, finding.was, finding.now, finding.change, finding.certainty]


def summary(verdict: Verdict) -> str:
    """The verdict in one sentence, with the number of figures compared; first, if speed was not compared."""
    unjudged = f"speed: not compared ({verdict.speed_unjudged}); " if verdict.speed_unjudged else ""
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


def _retime(verdict: Verdict) -> list[str]:
    """What to do about speed that alone regressed."""
    methods = ", ".join(map(title, verdict.retime))
    return [f"Only speed regressed. Time it once more before it counts: {methods}."] if methods else []


def markdown(verdict: Verdict, recent: Mapping[Key, Sequence[float]] | None = None) -> str:
    """Heading, sentence, the worst change, findings worst first, improvements folded; never longer than a comment may
    be. Findings of one family are a row.

    recent: the values of a figure in the last runs on this machine, the current one last; drawn where there are any.
    """
    heading = {"fine": "✅ fine", "regressed": "❌ regressed", "broken": "⛔ broken"}[verdict.word]
    what = "bench" if verdict.current.whole else "bench, time and memory"
    parts = [f"{MARKER}\n## {what}: {heading}", _inert(summary(verdict)), _sides(verdict)]
    if verdict.broken:
        parts.append(_list(verdict.broken))
    notes = _list([*verdict.notes, *_retime(verdict)])
    failing = [finding for finding in verdict.findings if finding.fails]
    others = [finding for finding in verdict.findings if not finding.fails]
    room = _LONGEST - sum(map(len, parts)) - len(notes) - 2_000
    lines = {key: sparkline(values) for key, values in (recent or {}).items() if len(values) > 1}
    if failing:
        parts.insert(2, _worst(failing[0], lines))
        text, room = _table(failing, room, lines)
        parts.append(text)
    if failing and verdict.current.whole:
        sides = f"{_code(verdict.baseline)} {_code(verdict.current)}"
        parts.append(f"Intended? Accept it as the new baseline: `python -m bench.gate {sides} --accept`")
    if others:
        text, room = _table(others, room, lines)
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


def _worst(finding: Finding, lines: Mapping[Key, str]) -> str:
    """The first finding as a sentence, with its last runs."""
    line = lines.get((finding.method, finding.figure), "")
    sizes = f"{finding.was} → {finding.now}{f' ({finding.change})' if finding.change else ''}"
    return f"Worst: {_inert(f'{title(finding.method)}, {finding.words}: {sizes}')}{f' {line}' if line else ''}"


def _table(findings: Sequence[Finding], room: int, lines: Mapping[Key, str]) -> tuple[str, int]:
    """As many rows as fit, one for each family, with a count of the others; and the remaining room."""
    columns = [*COLUMNS, "last runs"] if any((each.method, each.figure) in lines for each in findings) else COLUMNS
    shown = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    groups = fold(findings, lambda each: each.figure, lambda each: (each.method, each.kind))
    for number, (first, *rest) in enumerate(groups):
        cells = [_inert(cell) for cell in _cells(first)]
        cells[2] += f" (and {len(rest)} that follow{'s' * (len(rest) == 1)} it)" if rest else ""
        cells += [lines.get((first.method, first.figure), "")] * (len(columns) - len(COLUMNS))
        line = f"| {' | '.join(cells)} |"
        if room < len(line):
            shown.append(f"\n… and {sum(map(len, groups[number:])):,} more.")
            break
        shown.append(line)
        room -= len(line) + 1
    return "\n".join(shown), room


def sparkline(values: Sequence[float]) -> str:
    """Values as a line of blocks that spans at least 1 % of them, so that noise far below looks level."""
    low, high = min(values), max(values)
    middle = (low + high) / 2
    reach = max(high - low, _SPAN * abs(middle)) or 1.0
    return "".join(_BLOCKS[round(((value - middle) / reach + 0.5) * (len(_BLOCKS) - 1))] for value in values)


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
