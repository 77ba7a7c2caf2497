"""The page of a study of bars: each figure beside what it may be, and the points behind it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.formats import DASH, decimal, duration
from bench.records.files import write_atomically
from bench.records.targets import Target, Targets, load_targets
from bench.report.decode import decode_figures, decode_table
from bench.report.render import render
from bench.report.tables import Table


def write_page(path: Path, reports: Path) -> Path:
    """Write the page of the targets file at `path`; returns the page."""
    return write_bars(load_targets(path), reports)


def write_bars(bars: Targets, reports: Path) -> Path:
    """Write `index.html`, `report.md`, figures and tables below `reports`; returns the page."""

    folder = reports / bars.study
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "tables").mkdir(exist_ok=True)
    drawings, points = decode_figures(bars), decode_table(bars)
    for drawing in drawings:
        write_atomically(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
        (folder / "figures" / f"{drawing.name}.png").write_bytes(drawing.png)
    tables = [_bars_table(bars), *([points] if points.rows else [])]
    for table in tables:
        write_atomically(folder / "tables" / f"{table.name}.csv", table.data.to_csv(index=False, lineterminator="\n"))
    for template, name in (("bars.md", "report.md"), ("bars.html", "index.html")):
        write_atomically(folder / name, render(template, bars=bars, tables=tables, drawings=drawings))
    return folder / "index.html"


def _bars_table(bars: Targets) -> Table:

    rows = [
        [
            bar.figure,
            _measured(bar),
            bar.limit,
            "met" if bar.met else "missed",
            duration(bar.step_seconds.median if bar.step_seconds else None),
            decimal(bar.flop_ratio, 4) if bar.flop_ratio else DASH,
        ]
        for bar in bars.targets
    ]
    columns = ["figure", "measured", "bar", "", "step", "FLOPs of a step, over dense"]
    caption = "Medians over rounds, with the 95 % interval of the median; ratios are of what was timed in turn."
    return Table("bars", caption, columns, rows, pd.json_normalize([bar.model_dump() for bar in bars.targets]))


def _measured(bar: Target) -> str:
    told = f"{decimal(bar.value.median)} ({decimal(bar.value.low)} to {decimal(bar.value.high)})"
    return f"{told} {bar.unit}" if bar.unit else told
