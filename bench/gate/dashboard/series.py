"""The history as series: one per method and figure, with its change points on each machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.gate.history import Row, method_and_figure
from bench.gate.load import title
from bench.gate.rules import Better, rule_of, words
from bench.stats.change_points import find_steps

# Groups of figures, by the first part of their names, the most used first.
_GROUPS = {
    "quality": "Quality", "lm_eval": "Tasks", "speed": "Speed and decoding", "routing": "Routing",
    "flops": "FLOPs", "model": "Parameters", "training": "Training", "memory": "Memory",
    "loss_curve": "Training loss, early steps", "lr_curve": "Learning rate", "causality": "Causality",
}  # fmt: skip


@dataclass(frozen=True)
class SeriesStep:
    """A change point at the row numbered `row`, among the series' points on one machine."""

    row: int
    before: float
    after: float

    @property
    def share(self) -> float | None:
        """The change relative to the level before."""
        return (self.after - self.before) / abs(self.before) if self.before else None


@dataclass
class Series:
    """Points in time order: row numbers, values, and ends of their intervals where they have any.

    study: its name where the history holds several, otherwise empty.
    """

    method: str
    figure: str
    study: str = ""
    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    lows: list[float | None] = field(default_factory=list)
    highs: list[float | None] = field(default_factory=list)
    steps: list[SeriesStep] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The method in addresses, after its study if there are several: studies are not comparable."""
        return f"{self.study} {self.method}".strip()

    @property
    def title(self) -> str:
        """The same for people."""
        return f"{self.study} {title(self.method)}".strip()

    @property
    def words(self) -> str:
        return words(self.figure)

    @property
    def group(self) -> str:
        """The title of its group of figures."""
        part = self.figure.split(".")[0]
        return _GROUPS.get(part, part)

    @property
    def better(self) -> Better:
        """Which direction is better; `same`: neither."""
        rule = rule_of(self.figure, self.method)
        return rule.better if rule else "same"

    def worse(self, step: SeriesStep) -> bool | None:
        """Whether a step made the figure worse; None if it should only stay the same."""
        if self.better == "same":
            return None
        return (step.after > step.before) == (self.better == "lower")


def all_series(rows: Sequence[Row]) -> list[Series]:
    """Every figure of every method and study: by group, then in order of first appearance."""
    found: dict[tuple[str, str], Series] = {}
    several = len({row.study for row in rows if row.figures}) > 1
    for number, row in enumerate(rows):
        for name, numbers in row.figures.items():
            series = found.get((row.study, name))
            if series is None:
                method, figure = method_and_figure(name)
                series = found[row.study, name] = Series(method, figure, row.study if several else "")
            series.rows.append(number)
            series.values.append(numbers[0])
            low, high = numbers[1:] if len(numbers) == 3 else (None, None)
            series.lows.append(low)
            series.highs.append(high)
    machines = [row.machine for row in rows]
    for series in found.values():
        series.steps = _steps(series, machines)
    titles = list(dict.fromkeys([*_GROUPS.values(), *(series.group for series in found.values())]))
    return sorted(found.values(), key=lambda series: titles.index(series.group))


def machine_names(rows: Sequence[Row]) -> dict[str, str]:
    """Fingerprint -> name of each machine, with the start of the fingerprint where names repeat."""
    names = {row.machine: row.machine_name for row in rows}
    count = Counter(names.values())
    return {key: name if count[name] == 1 else f"{name} ({key[:8]})" for key, name in names.items()}


def _steps(series: Series, machines: Sequence[str]) -> list[SeriesStep]:
    own: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(series.rows):
        own[machines[row]].append(place)
    return [
        SeriesStep(series.rows[places[step.index]], step.before, step.after)
        for places in own.values()
        for step in find_steps([series.values[place] for place in places])
    ]
