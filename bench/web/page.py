"""Writes every page: its HTML, its Markdown copy, figures and tables, completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.errors import UserError
from bench.records.files import beside
from bench.web.figures import Drawing, sheet
from bench.web.intervals import MOST_MARKS, Mark
from bench.web.render import render
from bench.web.share import SHARE, share_picture
from bench.web.site import PAGE, Card, write_assets, write_site
from bench.web.tables import Table


@dataclass(frozen=True)
class Page:
    """What the frame of a page says, and the site of it.

    finding: its title, one sentence. facts: scale, text, machine. records: the folder that it was made from. marks:
    its answer as intervals about `line`, for the front page and for sharing.
    """

    name: str  # of its folder
    kind: str
    finding: str
    facts: Sequence[str]
    created: str
    records: Path | None = None
    commits: Sequence[str] = ()
    marks: Sequence[Mark] = ()
    line: float = 0.0

    def card(self, folder: Path) -> Card:
        """What the rest of the site knows of the page in `folder`."""
        records = Path(relpath(self.records, folder)).as_posix() if self.records else None
        return Card(
            self.name, self.kind, self.finding, " · ".join(self.facts), self.created, records, self.commits,
            self.marks[:MOST_MARKS], self.line,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A section: notes first, then widgets, drawings and tables; without any of the latter three it is not shown.

    widgets: for the page alone; pictures: the same as drawings, for Markdown. folder: of its files in figures/ and
    tables/, if there is one. folded: the line that opens the section on a click,
    where it is not open.
    """

    id: str
    title: str
    notes: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    widgets: Sequence[Markup] = ()
    pictures: Sequence[Drawing] = ()
    folder: str = ""
    folded: str = ""

    def __bool__(self) -> bool:
        return bool(self.drawings or self.widgets or any(table.rows for table in self.tables))

    def within(self, folder: str) -> Part:
        """The same part, with its files in a sub-folder of that name; in none if it is empty."""
        own = f"{folder}/" if folder else ""
        return replace(
            self,
            folder=folder,
            drawings=[replace(each, name=f"{own}{each.name}") for each in self.drawings],
            pictures=[replace(each, name=f"{own}{each.name}") for each in self.pictures],
            tables=[replace(each, name=f"{own}{each.name}") for each in self.tables if each.rows],
        )

    @property
    def sheets(self) -> list[Drawing]:
        """Its figures as one file, and its pictures as another, for Markdown."""
        own = f"{self.folder}/{self.id}" if self.folder else self.id
        named = ((own, self.drawings), (f"{own}_heat_maps", self.pictures))
        return [sheet(name, drawings) for name, drawings in named if drawings]


def write_page(
    reports: Path,
    page: Page,
    template: str,
    drawings: Iterable[Drawing],
    tables: Iterable[Table],
    values: Mapping[str, Any],
    templates: Path,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write `reports`/<page.name>, which it replaces as a whole, and the links of the site; returns the page.

    It holds index.html and report.md, from `<template>.{html,md}.j2` of the folder `templates` with `values`;
    `drawings` in figures/*.svg; `tables` in tables/*.csv; and `files`, name -> text. Raises UserError, and changes
    nothing, if the folder exists and is not a report, or cannot be written.
    """
    folder = reports / page.name
    if folder.exists() and not (folder / PAGE).exists():
        raise UserError(f"{folder} exists and is not a report. Move it away or give another --reports folder.")
    tables = list(tables)
    try:
        with beside(folder) as fresh:
            texts = {f"figures/{drawing.name}.svg": drawing.svg for drawing in drawings}
            texts |= {f"tables/{each.name}.csv": each.data.to_csv(index=False, lineterminator="\n") for each in tables}
            texts |= files or {}
            framed = {"page": page, "card": page.card(folder).json(), "share": SHARE, "written": sorted(texts)}
            framed |= values
            texts |= {"report.md": render(templates, f"{template}.md", framed)}
            texts |= {PAGE: render(templates, f"{template}.html", framed)}
            for name, text in texts.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_text(text, encoding="utf-8", newline="")
            (fresh / SHARE).write_bytes(share_picture(page.kind, page.finding, page.marks, page.line))
        write_assets(reports)
        write_site(reports)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}. Free some space or choose another folder."
        ) from error
    return folder / PAGE
