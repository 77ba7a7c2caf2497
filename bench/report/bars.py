"""The page of a study of bars: each figure beside what it may be."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from bench.bars import Bars
from bench.record import write_atomically


def write_bars(bars: Bars, reports: Path) -> Path:
    """Write `index.html` and `report.md` below `reports`; returns the page."""
    folder = reports / bars.study
    folder.mkdir(parents=True, exist_ok=True)
    templates = Environment(
        loader=PackageLoader("bench.report"), autoescape=select_autoescape(["html", "html.j2"]), trim_blocks=True
    )
    write_atomically(folder / "report.md", templates.get_template("bars.md.j2").render(bars=bars))
    page = folder / "index.html"
    write_atomically(page, templates.get_template("bars.html.j2").render(bars=bars))
    return page
