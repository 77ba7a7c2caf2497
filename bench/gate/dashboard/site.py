"""Writes the site: a static overview, and a page of charts that loads the series it shows.

| file | content |
| --- | --- |
| `index.html` | the latest verdicts, recent change points, the last value of every figure |
| `charts.html` | charts, by `#method=...&figure=...&machine=...&search=...&changed=1&last=...` |
| `data/rows.js`, `data/<n>.js` | the runs; one series each, read by script tags, which also work from a file |
| `vendor/` | uPlot (MIT), which draws the charts |
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.gate.dashboard.overview import overview
from bench.gate.dashboard.recent_changes import RECENT_RUNS, RecentChange, recent_changes
from bench.gate.dashboard.series import Series, all_series, machine_names
from bench.gate.history import Row
from bench.records.files import beside
from bench.web.data import script_json
from bench.web.site import ASSETS

_HERE = Path(__file__).parent
_SCRIPTS = ("numbers.js", "data.js", "filters.js", "chart.js", "tooltip.js", "dashboard.js")
_VENDOR = ("uPlot.iife.min.js", "uPlot.min.css", "LICENSE")
_ASSETS = ("dashboard.css", *_SCRIPTS)
_SHARED = ("theme.js", *(f"vendor/{name}" for name in _VENDOR))  # with the other pages
_OLDER = "reading.js"  # of a site that an older bench wrote
# Folder of the site -> the names in it, as a pattern.
_OURS = {
    "": "|".join(
        map(re.escape, ("index.html", "charts.html", "data", "vendor", "dashboard.css", "theme.js", *_SCRIPTS, _OLDER))
    ),
    "data": r"(rows|\d+)\.js",
    "vendor": "|".join(map(re.escape, _VENDOR)),
}


def build(rows: Sequence[Row], folder: Path) -> Path:
    """Write the site into `folder`, replacing an earlier one; returns its overview page.

    Raises UserError, and changes nothing, if it cannot be written or `folder` holds anything else.
    """
    series = all_series(rows)
    place = folder.resolve()  # a link to a folder stays a link
    try:
        _check_ours(place)
        with beside(place) as fresh:
            _write(rows, series, fresh)
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


def _write(rows: Sequence[Row], series: Sequence[Series], folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.js").write_text(f"benchRows({script_json(_rows(rows))});\n", encoding="utf-8")
    for number, each in enumerate(series):
        text = f"benchSeries({number}, {script_json(_packed(each))});\n"
        (folder / "data" / f"{number}.js").write_text(text, encoding="utf-8")
    (folder / "vendor").mkdir()
    for source, names in ((_HERE / "assets", _ASSETS), (ASSETS, _SHARED)):
        for name in names:
            shutil.copyfile(source / name, folder / name)
    changes = recent_changes(rows, series)
    pages = {"charts.html": {"catalogue": Markup(script_json(_catalogue(series, changes))), "recent_runs": RECENT_RUNS}}
    pages["index.html"] = overview(rows, series, changes)
    for name, values in pages.items():
        (folder / name).write_text(_render(name, **values), encoding="utf-8")


def _catalogue(series: Sequence[Series], changes: Sequence[RecentChange]) -> list[dict[str, Any]]:
    """The list of charts; `changed`: the place among recent change points."""
    places = {id(each.series): place for place, each in reversed(list(enumerate(changes)))}
    names = ("key", "title", "figure", "words")
    return [{name: getattr(each, name) for name in names} | {"changed": places.get(id(each))} for each in series]


def _rows(rows: Sequence[Row]) -> dict[str, Any]:
    """The runs by column; machines, which repeat, by number."""
    machines = machine_names(rows)
    order = list(machines)
    return {
        "machines": [{"id": key, "name": name} for key, name in machines.items()],
        "machine": [order.index(row.machine) for row in rows],
        "created": [row.created for row in rows],
        "commit": [row.commit for row in rows],
        "link": [row.link for row in rows],
        "verdict": [row.verdict for row in rows],
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


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(f"{template}.j2").render(**values)
