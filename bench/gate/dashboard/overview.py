"""The overview: the latest verdict of each machine, recent change points, and the last value of every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any

from markupsafe import Markup

from bench.gate.dashboard.links import charts_link, compare_link, safe_link
from bench.gate.dashboard.recent_changes import RECENT_RUNS, RecentChange
from bench.gate.dashboard.series import Series, machine_names
from bench.gate.families import fold, leader_of
from bench.gate.history import Row, method_and_figure
from bench.gate.load import title
from bench.gate.rules import words

_MOST = 40  # recent change points shown
_SEEN_DAYS = 30  # before the newest run; a machine without a later run is inactive
_SPARK = (96, 22, 60)  # width, height, most points


def overview(rows: Sequence[Row], series: Sequence[Series], changes: Sequence[RecentChange]) -> dict[str, Any]:
    """The values of the template `index.html`."""
    cards, since = _latest(rows, series), _days_before(rows[-1].created)
    latest = [card for card in cards if card["row"].created >= since]
    return {
        "finding": _sentence([card["row"].verdict for card in latest]),
        "latest": latest,
        "unseen": [card for card in cards if card["row"].created < since],
        "seen_days": _SEEN_DAYS,
        "changes": [_entry(each, rows) for each in changes[:_MOST]],
        "more_changes": max(0, len(changes) - _MOST),
        "recent_runs": RECENT_RUNS,
        "groups": _groups(rows, series, changes),
        "facts": f"{len(rows):,} run{'s' * (len(rows) != 1)} of the gate, {_day(rows[0])} to {_day(rows[-1])}",
        "safe_link": safe_link,
        "charts": charts_link,
    }


def _day(row: Row) -> str:
    return row.created[:10]


def _sentence(verdicts: Sequence[str]) -> str:
    """The latest verdicts of the active machines in one sentence, the worst first."""
    of = f" of {len(verdicts)} machines" if len(verdicts) > 1 else " machine"
    for word, text in (("broken", "Broken records"), ("regressed", "Regressed")):
        if word in verdicts:
            return f"{text} on {verdicts.count(word)}{of}"
    return f"Nothing got worse on {len(verdicts)} machine{'s' * (len(verdicts) > 1)}"


def _latest(rows: Sequence[Row], series: Sequence[Series]) -> list[dict[str, Any]]:
    """The last row of each machine, the latest first, with its findings in words and links to their charts."""
    last = {(row.study, row.machine): row for row in rows}.values()
    names, several = machine_names(rows), any(each.study for each in series)
    drawn = {(each.study, each.method, each.figure): each for each in series}
    cards = []
    for row in sorted(last, key=lambda row: row.created, reverse=True):
        study = f"study {row.study}, " if several else ""
        own = row.study if several else ""
        findings = [_finding(finding, len(rest), row, own, drawn) for finding, *rest in _families(row.findings)]
        cards.append({"row": row, "machine": f"{study}{names[row.machine]}", "findings": findings})
    return cards


def _days_before(newest: str) -> str:
    """The time since which a run counts as recent; empty, so that all do, if the newest time cannot be read."""
    try:
        return (datetime.fromisoformat(newest) - timedelta(days=_SEEN_DAYS)).isoformat()
    except (ValueError, OverflowError):
        return ""


def _families(findings: Sequence[str]) -> list[list[str]]:
    """Findings, `METHOD FIGURE: KIND`, of one method, kind and family together."""
    parts = {
        finding: (*method_and_figure(finding.rpartition(": ")[0]), finding.rpartition(": ")[2]) for finding in findings
    }
    return fold(findings, lambda each: parts[each][1], lambda each: (parts[each][0], parts[each][2]))


def _finding(
    finding: str, followers: int, row: Row, study: str, drawn: Mapping[tuple[str, str, str], Series]
) -> dict[str, str | None]:
    """A finding in words, with the number of those that follow it, and the address of its chart if there is one."""
    name, _, kind = finding.rpartition(": ")
    method, figure = method_and_figure(name)
    if not method:
        return {"text": finding, "link": None}
    series = drawn.get((study, method, figure))
    link = charts_link(figure=figure, method=series.key, machine=row.machine) if series else None
    also = f" (and {followers} that follow it)" if followers else ""
    return {"text": f"{f'{study} {title(method)}'.strip()}, {words(figure)}: {kind}{also}", "link": link}


def _entry(change: RecentChange, rows: Sequence[Row]) -> dict[str, Any]:
    first, names = change.rows[0], machine_names(rows)
    before = [row for row in rows if (row.study, row.machine) == (first.study, first.machine)]
    previous = before[max(0, before.index(first) - 1)]
    return {
        "method": change.series.key,
        "title": change.series.title,
        "figure": change.series.figure,
        "words": change.series.words,
        "also": [{"figure": each.figure, "words": each.words} for each in change.also],
        "size": change.size,
        "kind": change.kind,
        "machines": list(dict.fromkeys(names[row.machine] for row in change.rows)),
        "since": f"{first.created[:10]}, {(first.commit or 'unknown')[:12]}",
        "subject": first.subject,
        "compare": compare_link(first.link, previous.commit, first.commit),
    }


def _groups(rows: Sequence[Row], series: Sequence[Series], changes: Sequence[RecentChange]) -> list[dict[str, Any]]:
    """Groups of figures, each a grid with a row per figure and a column per method; figures that follow another come
    after, in a grid of their own.
    """
    kinds = {id(each): change.kind for change in reversed(changes) for each in (change.series, *change.also)}
    known = {each.figure for each in series}
    found = []
    for name, group in groupby(series, key=lambda each: each.group):
        own = list(group)
        figures = {each.figure: each.words for each in own}
        leads = {figure for figure in figures if leader_of(figure) == figure or leader_of(figure) not in known}
        found.append(
            {
                "title": name,
                "methods": {each.key: each.title for each in own},
                "figures": {figure: words for figure, words in figures.items() if figure in leads},
                "followers": {figure: words for figure, words in figures.items() if figure not in leads},
                "cells": {(each.figure, each.key): _cell(each, rows, kinds.get(id(each), "")) for each in own},
                "changed": sum(id(each) in kinds for each in own),
            }
        )
    return found


def _cell(series: Series, rows: Sequence[Row], kind: str) -> dict[str, Any]:
    return {"value": _written(series.values[-1]), "spark": _sparkline(series, rows), "kind": kind}


def _written(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g}"


def _sparkline(series: Series, rows: Sequence[Row]) -> Markup:
    """The last points on the latest machine as a line, level where they do not differ."""
    width, height, most = _SPARK
    machine = rows[series.rows[-1]].machine
    newest_first = zip(reversed(series.rows), reversed(series.values), strict=True)
    points = list(islice((value for row, value in newest_first if rows[row].machine == machine), most))[::-1]
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
