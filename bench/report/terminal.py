"""What the terminal says at the end of a run: the methods against their dense twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bench.formats import decimal, times
from bench.records.record import Record
from bench.report.differences import differences, verdict
from bench.report.load import Group, RunFiles, contract_words, group_runs, read_files
from bench.report.tables import loss_cell, told_cell


def summary_table(records: Sequence[Record], results: Path | None = None) -> str:
    """The methods against their dense twin, as aligned text, one for each comparison hash among `records`.

    With `results`, the folder they were saved below, one seed has an interval: that of its documents.
    """
    return "\n\n".join(_aligned(group) for group in _groups(records, results))


def verdicts(records: Sequence[Record], results: Path | None = None) -> list[str]:
    """One sentence for each method that has a dense twin among `records`."""
    return [verdict(difference) for group in _groups(records, results) for difference in differences(group)]


def _groups(records: Sequence[Record], results: Path | None) -> list[Group]:
    if results is None:
        return group_runs([RunFiles(record) for record in records])
    return group_runs([read_files(record, results / record.run.name / record.run.id)[0] for record in records])


def _aligned(group: Group) -> str:
    compared = {difference.label: difference for difference in differences(group)}
    rows = [["method", "seeds", "loss", "minus dense, nats (95 %)", "told apart", "speed-up", "ideal", "memory"]]
    for method in group.methods:
        losses = [run.record.quality.val_loss_nats for run in method.comparable if run.record.quality]
        difference = compared.get(method.label)
        speed = difference.speedup if difference else None
        rows.append(
            [
                method.label,
                ",".join(str(run.record.run.seed) for run in method.runs),
                decimal(fmean(losses) if losses else None),
                loss_cell(difference),
                told_cell(difference),
                times(speed.value if speed else None),
                times(difference.speedup_ideal if difference else None),
                times(difference.memory_ratio if difference else None),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    first = group.methods[0].first
    return "\n".join([f"{first.run.name}, {contract_words(first.contract)} (contract {first.contract})", *lines])
