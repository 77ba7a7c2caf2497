"""Recent change points: figures whose level changed in the last runs of a machine, one entry for all machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.formats import MINUS
from bench.gate.compare import percent
from bench.gate.dashboard.series import Series, SeriesStep
from bench.gate.families import fold
from bench.gate.history import Row

RECENT_RUNS = 30  # runs of a machine
_ORDER = {"worse": 0, "changed": 1, "better": 2}


@dataclass(frozen=True)
class RecentChange:
    """Steps of a series in one direction, one per machine, with the rows that they begin at; the earliest first.

    also: the series of its family that changed with it.
    """

    series: Series
    steps: list[SeriesStep]
    rows: list[Row]
    also: list[Series] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """worse | changed | better."""
        worse = self.series.worse(self.steps[0])
        return "changed" if worse is None else "worse" if worse else "better"

    @property
    def size(self) -> str:
        """The smallest and the largest change among its machines."""
        steps = sorted(self.steps, key=lambda step: abs(step.share or 0.0))
        least, most = _size(steps[0]), _size(steps[-1])
        return least if least == most else f"{least} to {most}"

    @property
    def rank(self) -> tuple[int, float]:
        """Worse before changed before better, then by size."""
        return _ORDER[self.kind], -max(abs(step.share or 0.0) for step in self.steps)


def recent_changes(rows: Sequence[Row], series: Sequence[Series]) -> list[RecentChange]:
    """The n-th steps up of a series on all machines are one entry, and so are the n-th steps down.

    Series of one family that changed at the same run, and both for the worse or the better, are one entry.
    """
    recent = _recent(rows)
    found = []
    for each in series:
        together: dict[tuple[bool, int], list[SeriesStep]] = defaultdict(list)
        met: dict[tuple[bool, str], int] = defaultdict(int)
        for step in sorted((step for step in each.steps if step.row in recent), key=lambda step: step.row):
            up, machine = step.after > step.before, rows[step.row].machine
            together[up, met[up, machine]].append(step)
            met[up, machine] += 1
        found += [RecentChange(each, steps, [rows[step.row] for step in steps]) for steps in together.values()]
    found.sort(key=lambda change: change.rank)
    groups = fold(found, lambda each: each.series.figure, lambda each: (each.series.key, each.kind, each.rows[0].id))
    return [replace(first, also=[each.series for each in rest]) for first, *rest in groups]


def _recent(rows: Sequence[Row]) -> set[int]:
    own: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        own[row.study, row.machine].append(number)
    return {number for numbers in own.values() for number in numbers[-RECENT_RUNS:]}


def _size(step: SeriesStep) -> str:
    if step.share is None:
        return f"{step.before:.4g} to {step.after:.4g}"
    return percent(step.share).replace("-", MINUS)
