"""Writes the site: a static overview, and a page of charts that loads the series it shows.

| file | content |
| --- | --- |
| `index.html` | the latest verdicts, recent change points, the last value of every figure |
| `charts.html` | charts, by `#method=...&figure=...&machine=...&search=...&changed=1&last=...` |
| `data/rows.js`, `data/<n>.js` | the runs; one series each, read by script tags, which also work from a file |

The style sheet, the theme and uPlot (MIT), which draws the charts, lie in the site's shared folder `../assets`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.errors import UserError
from bench.gate.dashboard.links import repository
from bench.gate.dashboard.overview import overview
from bench.gate.dashboard.recent_changes import RECENT_RUNS, RecentChange, recent_changes
from bench.gate.dashboard.series import Series, all_series, machine_names
from bench.gate.families import leader_of
from bench.gate.history import Row, note_of
from bench.records.files import beside
from bench.web.data import script_json
from bench.web.render import template
from bench.web.site import Card, write_assets, write_site

_HERE = Path(__file__).parent
_SCRIPTS = ("numbers.js", "data.js", "filters.js", "chart.js", "tooltip.js", "tools.js", "dashboard.js")
_ASSETS = ("dashboard.css", *_SCRIPTS)
_OLDER = ("reading.js", "theme.js", "vendor")  # of a site that an older bench wrote
# Folder of the site -> the names in it, as a pattern.
_OURS = {
    "": "|".join(map(re.escape, ("index.html", "charts.html", "data", *_ASSETS, *_OLDER))),
    "data": r"(rows|\d+)\.js",
    "vendor": r"uPlot\.iife\.min\.js|uPlot\.min\.css|LICENSE",
}


def build(rows: Sequence[Row], folder: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write the dashboard into `folder`, replacing an earlier one, and the shared files and front page of the site
    around it; returns its overview page.

    notes: commit, or the start of one -> what to know about it. Raises UserError, and changes nothing, if it cannot be
    written or `folder` holds anything else.
    """
    series = all_series(rows)
    place = folder.resolve()  # a link to a folder stays a link
    try:
        _check_ours(place)
        with beside(place) as fresh:
            _write(rows, series, notes or {}, fresh, place.name)
        write_assets(place.parent)
        write_site(place.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Choose another --reports folder.") from error
    return folder / "index.html"


def _check_ours(folder: Path) -> None:
    """Raises UserError if `folder` holds anything but an earlier site."""
    for part, ours in _OURS.items():
        place = folder / part
        for path in place.iterdir() if place.exists() else ():
            if not re.fullmatch(ours, path.name):
                name = path.relative_to(folder)
                raise UserError(f"{folder} is not replaced: it holds {name}, which is not part of a dashboard.")


def _write(rows: Sequence[Row], series: Sequence[Series], notes: Mapping[str, str], folder: Path, name: str) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.js").write_text(f"benchRows({script_json(_rows(rows, notes))});\n", encoding="utf-8")
    for number, each in enumerate(series):
        text = f"benchSeries({number}, {script_json(_packed(each))});\n"
        (folder / "data" / f"{number}.js").write_text(text, encoding="utf-8")
    for asset in _ASSETS:
        shutil.copyfile(_HERE / "assets" / asset, folder / asset)
    changes = recent_changes(rows, series)
    values = overview(rows, series, changes)
    card = Card(name, "Regression gate", values["finding"], values["facts"], rows[-1].created)
    pages = {
        "index.html": {**values, "card": card.json()},
        "charts.html": {"catalogue": Markup(script_json(_catalogue(series, changes))), "recent_runs": RECENT_RUNS},
    }
    for page, own in pages.items():
        (folder / page).write_text(
            template(page, _HERE / "templates").render(scripts=_SCRIPTS, **own), encoding="utf-8"
        )


def _catalogue(series: Sequence[Series], changes: Sequence[RecentChange]) -> list[dict[str, Any]]:
    """The list of charts; `changed`: the place among recent change points, `leader`: the chart that it follows."""
    places = {
        id(each): place
        for place, change in reversed(list(enumerate(changes)))
        for each in (change.series, *change.also)
    }
    numbers = {(each.key, each.figure): number for number, each in enumerate(series)}
    return [
        {
            **{name: getattr(each, name) for name in ("key", "title", "figure", "words")},
            "changed": places.get(id(each)),
            "leader": number if (number := numbers.get((each.key, leader_of(each.figure)))) != place else None,
        }
        for place, each in enumerate(series)
    ]


def _rows(rows: Sequence[Row], notes: Mapping[str, str]) -> dict[str, Any]:
    """The runs by column; machines and repositories, which repeat, by number."""
    machines, bases = machine_names(rows), [repository(row.link) for row in rows]
    order, repositories = list(machines), list(dict.fromkeys(bases))
    return {
        "machines": [{"id": key, "name": name} for key, name in machines.items()],
        "machine": [order.index(row.machine) for row in rows],
        "created": [row.created for row in rows],
        "commit": [row.commit for row in rows],
        "link": [row.link for row in rows],
        "verdict": [row.verdict for row in rows],
        "subject": [row.subject for row in rows],
        "repositories": repositories,
        "repository": [repositories.index(base) for base in bases],
        "notes": {number: note for number, row in enumerate(rows) if (note := note_of(row.commit, notes))},
    }


def _packed(series: Series) -> dict[str, Any]:
    return {
        "rows": series.rows,
        "values": _short(series.values),
        "lows": _short(series.lows) if any(low is not None for low in series.lows) else None,
        "highs": _short(series.highs) if any(high is not None for high in series.highs) else None,
        "steps": [[step.row, *_short([step.before, step.after]), series.worse(step)] for step in series.steps],
        "better": series.better,
    }


def _short(values: Sequence[float | None]) -> list[float | None]:
    """To seven digits, more than a chart shows; most series repeat a few values."""
    short = {value: None if value is None else float(f"{value:.7g}") for value in set(values)}
    return [short[value] for value in values]
