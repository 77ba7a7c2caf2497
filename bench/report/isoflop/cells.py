"""How estimates stand in the tables of an isoFLOP report."""

from __future__ import annotations

from collections.abc import Callable

from bench.fit.parabolas import Estimate
from bench.report.formats import DASH, signed, significant, with_interval
from bench.report.isoflop.seeds import SeedDifference


def difference_cell(value: Estimate | SeedDifference | None) -> str:
    """A difference with its interval, signed."""
    return cell(value, signed)


def cell(value: Estimate | SeedDifference | None, write: Callable[[float], str] = significant) -> str:
    """A value with its interval; a dash where there is none."""
    return DASH if value is None else with_interval(value.value, value.low, value.high, write)


def interval_columns(value: Estimate | SeedDifference | None, name: str) -> dict[str, float | None]:
    """The same for a CSV: `name`, `name_low`, `name_high`."""
    numbers = (value.value, value.low, value.high) if value else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
