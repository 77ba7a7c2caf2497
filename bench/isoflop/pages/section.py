"""What the sections of an isoFLOP report share: cells, CSV columns and lines over budgets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.formats import power, signed
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.results import Results, title
from bench.report.figures import DENSE, Drawing, canvas, error_bars, finish, styled
from bench.stats.interval import Interval

UNIT = "nats/token"
NAMED = "method, FLOPs"  # heading of rows that are `named`
Line = list[tuple[float, Interval]]  # (budget, value)


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
        error_bars(axes, x, [value for _, value in values], colour, linestyle="-", label=label)
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(results.budgets, [power(budget) for budget in results.budgets])
    axes.minorticks_off()
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(ylabel)
    axes.legend()
    return finish(figure, name, title, f"{title}, by training budget.", caption)
