"""The history turned on its side: a series for each method and figure, with its steps, machine by machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.gate.history import Row, method_and_figure
from bench.gate.rules import Better, rule_of, words
from bench.stats.change_points import find_steps

# Figures by the first part of their names, in the order in which one asks.
_GROUPS = {
    "quality": "Quality", "lm_eval": "Tasks", "speed": "Speed and decoding", "routing": "Routing",
    "flops": "FLOPs", "model": "Parameters", "training": "Training", "memory": "Memory",
    "loss_curve": "Training loss, early steps", "lr_curve": "Learning rate", "causality": "Causality",
}  # fmt: skip


@dataclass(frozen=True)
class SeriesStep:
    """A step at the row numbered `row`, of the series' points on one machine."""

    row: int
    before: float
    after: float

    @property
    def share(self) -> float | None:
        """The change over the level before."""
        return (self.after - self.before) / abs(self.before) if self.before else None


@dataclass
class Series:
    """Points in time order: row numbers, values, and ends of their intervals where they have any.

    shown: the method as pages name it.
    """

    method: str
    figure: str
    shown: str
    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    lows: list[float | None] = field(default_factory=list)
    highs: list[float | None] = field(default_factory=list)
    steps: list[SeriesStep] = field(default_factory=list)

    @property
    def words(self) -> str:
        return words(self.figure)

    @property
    def group(self) -> str:
        """The title of the figures that it stands among."""
        part = self.figure.split(".")[0]
        return _GROUPS.get(part, part)

    @property
    def better(self) -> Better:
        """Which way is better; `same`: neither."""
        rule = rule_of(self.figure, self.method)
        return rule.better if rule else "same"

    def worse(self, step: SeriesStep) -> bool | None:
        """Whether a step was for the worse; None where the figure is only meant to stay."""
        if self.better == "same":
            return None
        return (step.after > step.before) == (self.better == "lower")


def all_series(rows: Sequence[Row]) -> list[Series]:
    """Every method's every figure, study by study: by group, then in the order in which they first appear."""
    found: dict[tuple[str, str], Series] = {}
    shown = shown_methods(rows)
    for number, row in enumerate(rows):
        for name, numbers in row.figures.items():
            series = found.get((row.study, name))
            if series is None:
                method, figure = method_and_figure(name)
                series = found[row.study, name] = Series(method, figure, shown(row.study, method))
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


def shown_methods(rows: Sequence[Row]) -> Callable[[str, str], str]:
    """How (study, method) is named: with its study where more than one has figures, for they do not compare."""
    several = len({row.study for row in rows if row.figures}) > 1
    return lambda study, method: f"{study} {method}" if several else method


def machine_names(rows: Sequence[Row]) -> dict[str, str]:
    """Each machine's name, with the beginning of its fingerprint where others have the same name."""
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
