"""Figures and tables of the decode study: realised against ideal, over rows and over context."""

from __future__ import annotations

import pandas as pd

from bench.formats import times
from bench.records.record import DecodePoint
from bench.records.targets import Targets
from bench.report.decoding import DECODE_COLUMNS, decode_cells
from bench.report.figures import DENSE, Drawing, canvas, finish, method_colours, slug, styled
from bench.report.tables import Table


def decode_table(bars: Targets) -> Table:
    """Every point of every method."""
    points = [(method, point) for method, own in (bars.decode or {}).items() for point in own]
    points.sort(key=lambda each: (each[1].batch_size, each[1].context))
    twin = {(each.batch_size, each.context): each for _, each in points if each.kv_cache_ratio is None}
    rows, data = [], []
    for method, point in points:
        dense = twin.get((point.batch_size, point.context))
        held = None
        if dense is not None and point is not dense:
            held = point.kv_cache_held_bytes / dense.kv_cache_held_bytes
        rows.append([f"{method}, {point.batch_size} × {point.context}", *decode_cells([point]), times(held)])
        data.append({"method": method} | point.model_dump(exclude_none=True) | {"kv_cache_held_ratio": held})
    caption = (
        "Rows decoded together × tokens of context each. First token: reading all the contexts. The KV cache is what "
        "is allocated, room for growth included; held over dense: the keys and values that are there."
    )
    return Table("decode", caption, ["", *DECODE_COLUMNS, "held over dense"], rows, pd.json_normalize(data))


@styled
def decode_figures(bars: Targets) -> list[Drawing]:
    """For each method: speed-up over the rows decoded together at each context, and over context."""
    drawings = []
    for method, points in (bars.decode or {}).items():
        compared = [point for point in points if point.speedup_realised and point.speedup_ideal]
        for name, along, fixed, label in (
            ("rows", "batch_size", "context", "rows decoded together"),
            ("context", "context", "batch_size", "context, tokens"),
        ):
            lines = _lines(compared, along, fixed)
            if lines:
                drawings.append(_figure(method, name, lines, along, fixed, label))
    return drawings


def _lines(points: list[DecodePoint], along: str, fixed: str) -> dict[int, list[DecodePoint]]:
    """Points that differ in `along` alone, where there are three and more."""
    lines: dict[int, list[DecodePoint]] = {}
    for point in sorted(points, key=lambda point: getattr(point, along)):
        lines.setdefault(getattr(point, fixed), []).append(point)
    return {value: line for value, line in sorted(lines.items()) if len(line) > 2}


def _figure(method: str, name: str, lines: dict[int, list[DecodePoint]], along: str, fixed: str, label: str) -> Drawing:
    figure, axes = canvas(height=3.2)
    colours = list(method_colours([f"{method} {value}" for value in lines]).values())
    for colour, (value, line) in zip(colours, lines.items(), strict=True):
        x = [getattr(point, along) for point in line]
        realised = [point.speedup_realised for point in line if point.speedup_realised]
        middle = [each.median for each in realised]
        bounds = [
            [each.median - each.low for each in realised],
            [each.high - each.median for each in realised],
        ]
        what = f"context {value}" if fixed == "context" else f"{value} {'row' if value == 1 else 'rows'}"
        axes.errorbar(x, middle, yerr=bounds, color=colour, marker="o", markersize=3.5, capsize=2, label=what)
        axes.plot(x, [point.speedup_ideal or 0.0 for point in line], color=colour, linestyle=(0, (4, 3)), linewidth=1)
    axes.axhline(1, color=DENSE, linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = sorted({getattr(point, along) for line in lines.values() for point in line})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("speed over dense")
    axes.legend()
    return finish(
        figure,
        f"decode_{name}_{slug(method)}",
        f"Decoding over {'rows' if name == 'rows' else 'context'}, {method} against dense",
        f"Decode speed of {method} over dense against {label}, realised and by the roofline.",
        "Solid: realised, with the 95 % interval of the median over groups of steps. Dashed: what the roofline of both "
        "would allow.",
    )
