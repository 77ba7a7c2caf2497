"""Writes the site: the front page as it stands, and a page of charts that reads the series it needs.

| file | holds |
| --- | --- |
| `index.html` | the latest verdicts, what moved, every figure with its last value |
| `charts.html` | charts, by `#method=...&figure=...&machine=...&search=...&moved=1&last=...` |
| `data/rows.js`, `data/<n>.js` | the runs; a series each, read by script tags, which work from a file too |
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.gate.dashboard.overview import front_page
from bench.gate.dashboard.recent_changes import LATELY, Moved, moved_lately
from bench.gate.dashboard.series import Series, all_series, machine_names
from bench.gate.history import Row
from bench.records.files import beside

_HERE = Path(__file__).parent
_ASSETS = ("dashboard.css", "theme.js", "numbers.js", "data.js", "filters.js", "chart.js", "reading.js", "dashboard.js")
_DATA = re.compile(r"(rows|\d+)\.js")  # what is written into data/


def build(rows: Sequence[Row], folder: Path) -> Path:
    """Write the site into `folder`, in the place of the one before; returns its front page.

    Raises UserError where it cannot be written, or `folder` holds what is not this site's; what was there then stays.
    """
    series = all_series(rows)
    place = folder.resolve()  # a link to a folder stays one
    try:
        _check_ours(place)
        with beside(place) as fresh:
            _write(rows, series, fresh)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Choose another --reports folder.") from error
    return folder / "index.html"


def _check_ours(folder: Path) -> None:
    """An earlier site may be taken away, and nothing else."""
    ours, data = {"index.html", "charts.html", "data", *_ASSETS}, folder / "data"
    foreign = [path for path in folder.iterdir() if path.name not in ours] if folder.exists() else []
    foreign += [path for path in data.iterdir() if not _DATA.fullmatch(path.name)] if data.exists() else []
    if foreign:
        name = foreign[0].relative_to(folder)
        raise UserError(f"{folder} is not replaced: it holds {name}, which is not of a dashboard.")


def _write(rows: Sequence[Row], series: Sequence[Series], folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.js").write_text(f"benchRows({_script(_rows(rows))});\n", encoding="utf-8")
    for number, each in enumerate(series):
        text = f"benchSeries({number}, {_script(_packed(each))});\n"
        (folder / "data" / f"{number}.js").write_text(text, encoding="utf-8")
    for name in _ASSETS:
        shutil.copyfile(_HERE / "assets" / name, folder / name)
    moved = moved_lately(rows, series)
    pages = {"charts.html": {"catalogue": Markup(_script(_catalogue(series, moved))), "lately": LATELY}}
    pages["index.html"] = front_page(rows, series, moved)
    for name, values in pages.items():
        (folder / name).write_text(_render(name, **values), encoding="utf-8")


def _catalogue(series: Sequence[Series], moved: Sequence[Moved]) -> list[dict[str, Any]]:
    """What there is to draw; `moved`: the place among what moved lately."""
    places = {id(each.series): place for place, each in reversed(list(enumerate(moved)))}
    return [
        {"method": each.shown, "figure": each.figure, "words": each.words, "moved": places.get(id(each))}
        for each in series
    ]


def _rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Column by column; machines, which repeat, by number."""
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
    """To seven digits, which is more than a chart shows; most series repeat a few values."""
    short = {value: None if value is None else float(f"{value:.7g}") for value in set(values)}
    return [short[value] for value in values]


def _script(value: Any) -> str:
    """JSON that may stand in a script: no tag can end or begin in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(f"{template}.j2").render(**values)
