"""What the sections of an isoFLOP report share: their type, cells, CSV columns and lines over budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.formats import power, signed
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.results import Results, title
from bench.report.figures import DENSE, Drawing, canvas, finish, styled
from bench.report.routing import HeatMap
from bench.report.tables import Table
from bench.stats.interval import Interval

UNIT = "nats/token"
NAMED = "method, FLOPs"  # heading of rows that are `named`
Line = list[tuple[float, Interval]]  # (budget, value)


@dataclass(frozen=True)
class Part:
    """Notes first, then heat maps, drawings and tables; without any of those three it is not shown.

    pictures: the heat maps as drawings, for Markdown. Tables without rows are written as CSV only.
    """

    id: str
    title: str
    notes: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    heat_maps: Sequence[HeatMap] = field(default=())
    pictures: Sequence[Drawing] = ()

    def __bool__(self) -> bool:
        return bool(self.drawings or self.heat_maps or any(table.rows for table in self.tables))


def there(*drawings: Drawing | None) -> list[Drawing]:
    """Those that could be drawn."""
    return [drawing for drawing in drawings if drawing is not None]


def named(method: str, budget: float) -> str:
    """A row's name in tables of methods and budgets."""
    return f"{title(method)}, {power(budget)}"


def shape_of(runs: pd.DataFrame) -> str:
    """Layers and width of runs of one shape: 4×24."""
    return f"{runs['n_layers'].iloc[0]}×{runs['d_model'].iloc[0]}"


def difference_cell(value: Interval | None) -> str:
    """A difference with its interval, signed."""
    return in_words(value, signed)


def interval_columns(value: Interval | None, name: str) -> dict[str, float | None]:
    """The same for a CSV: `name`, `name_low`, `name_high`."""
    numbers = (value.value, value.low, value.high) if value else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


@styled
def lines_over_budgets(
    results: Results, lines: Mapping[str, tuple[str, Line]], name: str, title: str, ylabel: str, caption: str
) -> Drawing | None:
    """Differences with their intervals over training budgets; `lines`: label -> colour and values."""
    lines = {label: line for label, line in lines.items() if line[1]}
    if not lines:
        return None
    figure, axes = canvas()
    for place, (label, (colour, values)) in enumerate(lines.items()):
        x = np.array([budget for budget, _ in values]) * (1 + 0.04 * (place - (len(lines) - 1) / 2))
        error_bars(axes, x.tolist(), [value for _, value in values], colour, linestyle="-", label=label)
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(results.budgets, [power(budget) for budget in results.budgets])
    axes.minorticks_off()
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(ylabel)
    axes.legend()
    return finish(figure, name, title, f"{title}, by training budget.", caption)


def error_bars(axes: Axes, at: Sequence[float], intervals: Sequence[Interval], colour: str, **style: Any) -> None:
    """A dot per value with the bar of its interval; an open or unknown end has no bar."""
    values = [each.value for each in intervals]
    reach = [
        [_reach(each.low, each.value) for each in intervals],
        [_reach(each.value, each.high) for each in intervals],
    ]
    dots: dict[str, Any] = {
        "marker": "o",
        "markersize": 4,
        "linestyle": "none",
        "capsize": 2,
        "elinewidth": 1.5,
    } | style
    axes.errorbar(at, values, yerr=reach, color=colour, **dots)


def _reach(start: float | None, end: float | None) -> float:
    """The length of one side of a bar: 0 where that side is open."""
    return max(0.0, end - start) if start is not None and end is not None and math.isfinite(end - start) else 0.0
