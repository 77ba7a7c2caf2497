"""Writes every report: a page, its Markdown copy, figures and tables, completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.records.files import beside
from bench.report.figures import Drawing, sheet
from bench.report.routing import HeatMap
from bench.report.tables import Table

PAGE = "index.html"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Part:
    """Notes first, then heat maps, drawings and tables; without any of the latter three it is not shown.

    pictures: the heat maps as drawings, for Markdown. folder: of its files in figures/ and tables/, if there is one.
    """

    id: str
    title: str
    notes: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    heat_maps: Sequence[HeatMap] = field(default=())
    pictures: Sequence[Drawing] = ()
    folder: str = ""

    def __bool__(self) -> bool:
        return bool(self.drawings or self.heat_maps or any(table.rows for table in self.tables))

    def within(self, folder: str) -> Part:
        """The same part, with its files in a sub-folder of that name; in none if it is empty."""
        own = f"{folder}/" if folder else ""
        return replace(
            self,
            folder=folder,
            drawings=[replace(each, name=f"{own}{each.name}") for each in self.drawings],
            tables=[replace(each, name=f"{own}{each.name}") for each in self.tables if each.rows],
        )

    @property
    def sheets(self) -> list[Drawing]:
        """Its figures as one file, and its heat maps as another, for Markdown."""
        own = f"{self.folder}/{self.id}" if self.folder else self.id
        named = ((own, self.drawings), (f"{own}_heat_maps", self.pictures))
        return [sheet(name, drawings) for name, drawings in named if drawings]


def write_page(
    folder: Path,
    template: str,
    drawings: Iterable[Drawing],
    tables: Iterable[Table],
    values: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    templates: Path = _TEMPLATES,
) -> Path:
    """Write a report as `folder`, which it replaces as a whole; returns its page.

    It holds index.html and report.md, from `<template>.{html,md}.j2` of the folder `templates` with `values`;
    `drawings` in figures/*.svg; `tables` in tables/*.csv; and `files`, name -> text. Raises UserError, and changes
    nothing, if `folder` exists and is not a report, or cannot be written.
    """
    if folder.exists() and not (folder / PAGE).exists():
        raise UserError(f"{folder} exists and is not a report. Move it away or give another --reports folder.")
    try:
        with beside(folder) as fresh:
            texts = {f"figures/{drawing.name}.svg": drawing.svg for drawing in drawings}
            texts |= {f"tables/{each.name}.csv": each.data.to_csv(index=False, lineterminator="\n") for each in tables}
            texts |= files or {}
            texts |= {"report.md": render(templates, f"{template}.md", values)}
            texts |= {PAGE: render(templates, f"{template}.html", values)}
            for name, text in texts.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}. Free some space or choose another folder."
        ) from error
    return folder / PAGE


def render(templates: Path, template: str, values: Mapping[str, Any]) -> str:
    """`<template>.j2` with `values`, each escaped; a page has its style inside it and fetches nothing.

    templates: a folder, which may use the macros and the base of this one's.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": markdown_cell, "fence": _fence, "inline": lambda drawing: Markup(drawing.inline)}
    style = Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))
    text = environment.get_template(f"{template}.j2").render(style=style, **values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if template.endswith(".md") else text


def markdown_cell(text: str) -> Markup:
    """`text` as inert Markdown on one line: HTML, tables, links, emphasis, quotes and code in it stay plain characters.

    No tag and no entity begins without `<` or `&`; a `>` has a meaning only at the beginning of a line.
    """
    escaped = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return Markup(re.sub(r"([\\`*_\[\]|~]|^>)", r"\\\1", escaped))


def _fence(text: str) -> Markup:
    """`text` as a Markdown code block whose fence is longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")
