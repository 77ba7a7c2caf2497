"""What moved lately: levels that stepped in the last runs of a machine, told once for all machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.gate.dashboard.series import Series, SeriesStep
from bench.gate.history import Row

LATELY = 30  # runs of a machine
_ORDER = {"worse": 0, "changed": 1, "better": 2}


@dataclass(frozen=True)
class Moved:
    """A series' steps one way, a step a machine, with the rows they begin at; the earliest first."""

    series: Series
    steps: list[SeriesStep]
    rows: list[Row]

    @property
    def kind(self) -> str:
        """worse | changed | better."""
        worse = self.series.worse(self.steps[0])
        return "changed" if worse is None else "worse" if worse else "better"

    @property
    def size(self) -> str:
        """From the least to the most of its machines."""
        told = dict.fromkeys(_size(step) for step in sorted(self.steps, key=lambda step: abs(step.share or 0.0)))
        least, most = list(told)[0], list(told)[-1]
        return least if least == most else f"{least} to {most}"

    @property
    def rank(self) -> tuple[int, float]:
        """The worse first, then by size."""
        return _ORDER[self.kind], -max(abs(step.share or 0.0) for step in self.steps)


def moved_lately(rows: Sequence[Row], series: Sequence[Series]) -> list[Moved]:
    """The first steps up of a series on every machine are one entry, so are the second, and so down."""
    recent = _recent(rows)
    found = []
    for each in series:
        together: dict[tuple[bool, int], list[SeriesStep]] = defaultdict(list)
        met: dict[tuple[bool, str], int] = defaultdict(int)
        for step in sorted((step for step in each.steps if step.row in recent), key=lambda step: step.row):
            up, machine = step.after > step.before, rows[step.row].machine
            together[up, met[up, machine]].append(step)
            met[up, machine] += 1
        found += [Moved(each, steps, [rows[step.row] for step in steps]) for steps in together.values()]
    return sorted(found, key=lambda moved: moved.rank)


def _recent(rows: Sequence[Row]) -> set[int]:
    own: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        own[row.study, row.machine].append(number)
    return {number for numbers in own.values() for number in numbers[-LATELY:]}


def _size(step: SeriesStep) -> str:
    if step.share is None:
        return f"{step.before:.4g} to {step.after:.4g}"
    share = f"{100 * step.share:+.2g}" if abs(step.share) < 0.1 else f"{100 * step.share:+,.0f}"
    return f"{share} %".replace("-", "−")
