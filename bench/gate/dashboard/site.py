"""Writes the site: the front page as it stands, and a page of charts that reads the series it needs.

| file | holds |
| --- | --- |
| `index.html` | the latest verdicts, what moved, every figure with its last value |
| `charts.html` | charts, by `#method=...&figure=...&machine=...` |
| `data/rows.js`, `data/<n>.js` | the runs; a series each, read by script tags, which work from a file too |
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.gate.dashboard.front import front_page
from bench.gate.dashboard.series import Series, all_series
from bench.gate.history import Row
from bench.record import write_atomically

_HERE = Path(__file__).parent
_ASSETS = ("dashboard.css", "dashboard.js", "theme.js")


def build(rows: Sequence[Row], folder: Path) -> Path:
    """Write the site into `folder`, in the place of the one before; returns its front page.

    Raises UserError where it cannot be written, or `folder` holds what is not this site's.
    """
    series = all_series(rows)
    try:
        _clear(folder)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "data" / "rows.js", f"benchRows({_script(_rows(rows))});\n")
        for number, each in enumerate(series):
            text = f"benchSeries({number}, {_script(_packed(each))});\n"
            (folder / "data" / f"{number}.js").write_text(text, encoding="utf-8")
        for name in _ASSETS:
            shutil.copyfile(_HERE / "assets" / name, folder / name)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Choose another --reports folder.") from error
    catalogue = [{"method": each.method, "figure": each.figure, "words": each.words} for each in series]
    write_atomically(folder / "charts.html", _render("charts.html", catalogue=Markup(_script(catalogue))))
    write_atomically(folder / "index.html", _render("index.html", **front_page(rows, series)))
    return folder / "index.html"


def _clear(folder: Path) -> None:
    """Take an earlier site away, and nothing else."""
    if not folder.exists():
        return
    known = {"index.html", "charts.html", "data", *_ASSETS}
    foreign = [path for path in folder.iterdir() if path.name not in known]
    if foreign:
        raise UserError(f"{folder} is not replaced: it holds {foreign[0].name}, which is not of a dashboard.")
    shutil.rmtree(folder / "data", ignore_errors=True)


def _rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Column by column; machines, which repeat, by number."""
    machines = {row.machine: row.machine_name for row in rows}
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
