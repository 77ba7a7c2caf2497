"""How estimates stand in the tables of an isoFLOP report."""

from __future__ import annotations

from collections.abc import Callable

from bench.formats import DASH, signed, significant, with_interval
from bench.isoflop.analysis.differences import SeedDifference
from bench.stats.parabolas import Estimate


def difference_cell(value: Estimate | SeedDifference | None) -> str:
    """A difference with its interval, signed."""
    return cell(value, signed)


def cell(value: Estimate | SeedDifference | None, write: Callable[[float], str] = significant) -> str:
    """A value with its interval, or that it has none: such a value is the least sure. A dash where there is neither."""
    if value is None:
        return DASH
    text = with_interval(value.value, value.low, value.high, write)
    return text if value.low is not None else f"{text} (no interval)"


def interval_columns(value: Estimate | SeedDifference | None, name: str) -> dict[str, float | None]:
    """The same for a CSV: `name`, `name_low`, `name_high`."""
    numbers = (value.value, value.low, value.high) if value else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
