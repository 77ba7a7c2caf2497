"""What the front page shows: the latest verdict of each machine, what moved lately, and every figure's last value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from bench.gate.dashboard.series import Series, SeriesStep
from bench.gate.history import Row
from bench.gate.rules import words

_LATELY = 30  # runs of a machine whose steps the front page tells
_MOST = 40
_SPARK = (96, 22, 60)  # width, height, most points


@dataclass(frozen=True)
class Moved:
    """A step, for the list of what moved."""

    series: Series
    step: SeriesStep
    row: Row

    @property
    def kind(self) -> str:
        """worse | better | changed."""
        worse = self.series.worse(self.step)
        return "changed" if worse is None else "worse" if worse else "better"

    @property
    def size(self) -> str:
        share = self.step.share
        if share is None:
            return f"{self.step.before:.4g} to {self.step.after:.4g}"
        return f"{100 * share:+.2g} %".replace("-", "−")


def front_page(rows: Sequence[Row], series: Sequence[Series]) -> dict[str, Any]:
    """The values of the template `index.html`."""
    latest = list({row.machine: row for row in rows}.values())[::-1]
    moved = _moved(rows, series)
    return {
        "latest": sorted(latest, key=lambda row: row.created, reverse=True),
        "moved": moved[:_MOST],
        "more_moved": max(0, len(moved) - _MOST),
        "lately": _LATELY,
        "groups": _groups(rows, series),
        "runs": len(rows),
        "first": rows[0].created,
        "last": rows[-1].created,
        "told": told,
        "safe_link": safe_link,
        "charts": charts_link,
    }


def told(finding: str) -> str:
    """`METHOD FIGURE: KIND`, as a history has it, with the figure in words."""
    name, _, kind = finding.rpartition(": ")
    method, _, figure = name.partition(" ")
    return f"{method}, {words(figure)}: {kind}" if figure else finding


def safe_link(link: str | None) -> str | None:
    """A link that may be followed: http and https alone."""
    try:
        return link if link and urlsplit(link).scheme in ("http", "https") else None
    except ValueError:
        return None


def charts_link(**chosen: str) -> str:
    """The page of charts, with these chosen."""
    return "charts.html#" + "&".join(f"{key}={quote(value, safe='')}" for key, value in chosen.items())


def _moved(rows: Sequence[Row], series: Sequence[Series]) -> list[Moved]:
    """Steps in the last runs of each machine: the worse first, then by size."""
    recent = set()
    for machine in {row.machine for row in rows}:
        recent |= set([number for number, row in enumerate(rows) if row.machine == machine][-_LATELY:])
    found = [Moved(each, step, rows[step.row]) for each in series for step in each.steps if step.row in recent]
    order = {"worse": 0, "changed": 1, "better": 2}
    return sorted(found, key=lambda m: (order[m.kind], -abs(m.step.share or 0.0), m.series.method, m.series.figure))


def _groups(rows: Sequence[Row], series: Sequence[Series]) -> list[dict[str, Any]]:
    """Groups of figures, each a table: a row a figure, a column a method."""
    found = []
    for title, group in groupby(series, key=lambda each: each.group):
        own = list(group)
        methods = list(dict.fromkeys(each.method for each in own))
        figures = {each.figure: each.words for each in own}
        cells = {(each.figure, each.method): _cell(each, rows) for each in own}
        found.append({"title": title, "methods": methods, "figures": figures, "cells": cells})
    return found


def _cell(series: Series, rows: Sequence[Row]) -> dict[str, Any]:
    return {"value": _written(series.values[-1]), "spark": _sparkline(series, rows)}


def _written(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g}"


def _sparkline(series: Series, rows: Sequence[Row]) -> Markup:
    """The last points on the latest machine, as a line between their least and most; level where they do not differ."""
    width, height, most = _SPARK
    machine = rows[series.rows[-1]].machine
    points = [v for row, v in zip(series.rows, series.values, strict=True) if rows[row].machine == machine][-most:]
    low, high = min(points), max(points)
    middle = (low + high) / 2
    reach = max(high - low, 0.01 * abs(middle)) or 1.0  # so that noise far below 1 % looks level
    step = (width - 4) / max(1, len(points) - 1)
    line = " ".join(
        f"{2 + number * step:.1f},{height / 2 - (value - middle) / reach * (height - 4):.1f}"
        for number, value in enumerate(points)
    )
    return Markup(
        f'<svg class="spark" width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<polyline points="{line}"/></svg>'
    )
