"""The verdict as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bench.gate.compare import Finding, Verdict

COLUMNS = ("", "method", "figure", "baseline", "now", "change", "certainty")
_SHOWN = 30


def terminal(verdict: Verdict) -> str:
    """What moved, the worst first, and one sentence at the end."""
    lines = [f"broken: {line}" for line in verdict.broken]
    rows = [cells(finding) for finding in verdict.findings[:_SHOWN]]
    if rows:
        lines += ["", *_aligned([list(COLUMNS), *rows]), ""]
    if len(verdict.findings) > _SHOWN:
        lines.append(f"and {len(verdict.findings) - _SHOWN} more; --json FILE writes all.")
    lines += [f"note: {note}" for note in verdict.notes]
    return "\n".join(plain(line) for line in [*lines, summary(verdict)])


def cells(finding: Finding) -> list[str]:
    """A row of the table under COLUMNS."""
    return [
        finding.kind, finding.method, finding.words, finding.was, finding.now, finding.change, finding.certainty
    ]  # fmt: skip


def summary(verdict: Verdict) -> str:
    """The verdict in one sentence, with how much it stands on."""
    kinds = [finding.kind for finding in verdict.findings]
    told = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    counted = f"{verdict.compared:,} figures of {verdict.current.study} compared"
    if verdict.broken:
        n = len(verdict.broken)
        return f"BROKEN: {n} {'record' if n == 1 else 'records'} cannot be relied on; {counted}."
    outcome = "REGRESSED" if verdict.status else "fine"
    return f"{outcome}: {counted}; {', '.join(told) if told else 'nothing moved'}."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def plain(line: str) -> str:
    """Names come from files: control characters in them must not reach the terminal."""
    return "".join(character if character.isprintable() else "�" for character in line)
