"""What the front page shows: the latest verdict of each machine, what moved lately, and every figure's last value."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from bench.gate.dashboard.recent_changes import LATELY, Moved
from bench.gate.dashboard.series import Series, machine_names, shown_methods
from bench.gate.history import Row, method_and_figure
from bench.gate.rules import words

_MOST = 40  # entries of what moved
_SEEN_DAYS = 30  # before the newest run: a machine without a run since says nothing of today
_SPARK = (96, 22, 60)  # width, height, most points


def front_page(rows: Sequence[Row], series: Sequence[Series], moved: Sequence[Moved]) -> dict[str, Any]:
    """The values of the template `index.html`."""
    cards, since = _latest(rows, series), _days_before(rows[-1].created)
    return {
        "latest": [card for card in cards if card["row"].created >= since],
        "unseen": [card for card in cards if card["row"].created < since],
        "seen_days": _SEEN_DAYS,
        "moved": [_entry(each, machine_names(rows)) for each in moved[:_MOST]],
        "more_moved": max(0, len(moved) - _MOST),
        "lately": LATELY,
        "groups": _groups(rows, series),
        "runs": len(rows),
        "first": rows[0].created,
        "last": rows[-1].created,
        "safe_link": safe_link,
        "charts": charts_link,
    }


def _latest(rows: Sequence[Row], series: Sequence[Series]) -> list[dict[str, Any]]:
    """The last row of each machine, the latest first, with its findings in words and where they are drawn."""
    last = {(row.study, row.machine): row for row in rows}.values()
    names, shown = machine_names(rows), shown_methods(rows)
    drawn = {(each.shown, each.figure) for each in series}
    cards = []
    for row in sorted(last, key=lambda row: row.created, reverse=True):
        study = f"study {row.study}, " if shown(row.study, "") else ""
        findings = [_finding(finding, row, shown, drawn) for finding in row.findings]
        cards.append({"row": row, "machine": f"{study}{names[row.machine]}", "findings": findings})
    return cards


def _days_before(newest: str) -> str:
    """From when on a run is a late one; where the newest row's time is none, all are."""
    try:
        return (datetime.fromisoformat(newest) - timedelta(days=_SEEN_DAYS)).isoformat()
    except (ValueError, OverflowError):
        return ""


def _finding(
    finding: str, row: Row, shown: Callable[[str, str], str], drawn: Container[tuple[str, str]]
) -> dict[str, str | None]:
    """A finding in words, and the address of its chart, where it has one."""
    method, figure, kind = _parts(finding)
    if not method:
        return {"told": finding, "link": None}
    method = shown(row.study, method)
    link = charts_link(figure=figure, method=method, machine=row.machine) if (method, figure) in drawn else None
    return {"told": f"{method}, {words(figure)}: {kind}", "link": link}


def _parts(finding: str) -> tuple[str, str, str]:
    """Method, figure and kind of `METHOD FIGURE: KIND`, as a history has it."""
    name, _, kind = finding.rpartition(": ")
    return *method_and_figure(name), kind


def _entry(moved: Moved, names: Mapping[str, str]) -> dict[str, Any]:
    first = moved.rows[0]
    return {
        "method": moved.series.shown,
        "figure": moved.series.figure,
        "words": moved.series.words,
        "size": moved.size,
        "kind": moved.kind,
        "machines": list(dict.fromkeys(names[row.machine] for row in moved.rows)),
        "since": f"{first.created[:10]}, {(first.commit or 'unknown')[:12]}",
    }


def safe_link(link: str | None) -> str | None:
    """A link that may be followed: http and https alone."""
    try:
        return link if link and urlsplit(link).scheme in ("http", "https") else None
    except ValueError:
        return None


def charts_link(**chosen: str) -> str:
    """The page of charts, with these chosen."""
    return "charts.html#" + "&".join(f"{key}={quote(value, safe='')}" for key, value in chosen.items())


def _groups(rows: Sequence[Row], series: Sequence[Series]) -> list[dict[str, Any]]:
    """Groups of figures, each a table: a row a figure, a column a method."""
    found = []
    for title, group in groupby(series, key=lambda each: each.group):
        own = list(group)
        methods = list(dict.fromkeys(each.shown for each in own))
        figures = {each.figure: each.words for each in own}
        cells = {(each.figure, each.shown): _cell(each, rows) for each in own}
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
