"""What the sections of an isoFLOP report share: cells, CSV columns, and names of rows."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.formats import power, signed
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.results import title
from bench.stats.interval import Interval
from bench.web.figures import Drawing

UNIT = "nats/token"
NAMED = "method, FLOPs"  # heading of rows that are `named`


def there(*drawings: Drawing | None) -> list[Drawing]:
    """Those that could be drawn."""
    return [drawing for drawing in drawings if drawing is not None]


def counted(values: Iterable[Interval | None], limit: float = 0.0) -> str:
    """How many of the intervals lie below `limit`, and how many above: for the line that opens a section."""
    sides = [value.below(limit) for value in values if value is not None]
    where = f"{limit:g}"
    return f"{sides.count(True)} of {len(sides)} intervals lie below {where}, {sides.count(False)} above"


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
