"""The site around the pages: their shared files, the front page, and on every page the links to the others.

A page carries its card in its head. From the cards of all pages this module writes the front page, and fills the
regions of every page that depend on the rest of the site: addresses for sharing, the list of reports, the source.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bench.records.files import write_atomically
from bench.records.lease import locked
from bench.stats.interval import Interval
from bench.web.intervals import Mark, Scale
from bench.web.render import template
from bench.web.share import SHARE

PAGE = "index.html"
META, SITE = "bench-page", "bench-site"  # names of the elements in a page's head that hold its card, and the site's
ASSETS = Path(__file__).parent / "assets"
# Kinds of pages, as headings of the front page; others come last.
KINDS = ("Comparison with dense", "isoFLOP study", "Ranking", "Speed", "Evidence", "Regression gate")
_REGION = re.compile(r"<!-- bench:(\w+) -->.*?<!-- /bench:\1 -->", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """What other pages say of a page. records: the folder that it was made from, relative to the page."""

    name: str
    kind: str
    finding: str
    facts: str
    created: str
    records: str | None = None
    commits: Sequence[str] = ()
    marks: Sequence[Mark] = ()
    line: float = 0.0

    @property
    def scale(self) -> Scale:
        return Scale(self.marks, [self.line])

    @property
    def in_repository(self) -> str | None:
        """The folder of the records in a repository that has the reports in reports/; None if it is outside."""
        place = posixpath.normpath(posixpath.join("reports", self.name, self.records)) if self.records else ".."
        return None if place.startswith("..") else place

    def json(self) -> str:
        return json.dumps(asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if v not in (None, ())}))

    @classmethod
    def parse(cls, text: str) -> Card:
        """Raises ValueError, TypeError or KeyError if it is not one."""
        content = json.loads(text)
        marks = [Mark(**mark | {"interval": Interval(**mark["interval"])}) for mark in content.pop("marks", [])]
        return cls(**content, marks=marks)


@dataclass(frozen=True)
class Address:
    """Where the site is published, and its code; empty if unknown. records: whether they lie where pages link to."""

    url: str = ""
    repository: str = ""
    records: bool = True


def write_assets(reports: Path) -> None:
    """Copy the style sheet and the scripts to `reports`/assets, where they differ."""
    for source in sorted(ASSETS.rglob("*.*")):
        target, content = reports / "assets" / source.relative_to(ASSETS), source.read_text(encoding="utf-8")
        if not target.exists() or target.read_text(encoding="utf-8") != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)


def write_site(reports: Path, address: Address | None = None) -> Path:
    """Write `reports`/index.html, and the links between it and the page in each folder below; returns it.

    address: None for the one that the front page remembers.
    """
    front = reports / PAGE
    address = address or remembered(reports)
    pages = read_cards(reports)
    others = [
        (name.capitalize(), f"{name}/{PAGE}") for name in ("dashboard", "docs") if (reports / name / PAGE).exists()
    ]
    for path in pages:
        with locked(reports / f".{path.parent.name}.lock"):  # nobody replaces the page meanwhile
            text = path.read_text(encoding="utf-8")
            linked = link_page(text, pages[path], list(pages.values()), address, others)
            if linked != text:
                write_atomically(path, linked)
    write_atomically(front, front_page(list(pages.values()), address, others))
    return front


def repository() -> str:
    """The repository that a GitHub workflow runs in; empty elsewhere."""
    host, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{host}/{name}" if host and name else ""


def read_cards(reports: Path) -> dict[Path, Card]:
    """The pages in the folders of `reports`, with their cards; pages of other makes are left out."""
    return {path: card for path in sorted(reports.glob(f"[!.]*/{PAGE}")) if (card := _card(path))}


def remembered(reports: Path) -> Address:
    """The address that the front page of `reports` was written with; an empty one if there is none."""
    front = reports / PAGE
    content = _meta(front, SITE) if front.exists() else None
    try:
        return Address(**json.loads(content)) if content else Address()
    except (ValueError, TypeError):
        return Address()


def front_page(cards: Sequence[Card], address: Address, others: Sequence[tuple[str, str]]) -> str:
    """The newest comparison as the main answer, then a card for each other page.

    others: (title, link) of further pages.
    """
    answer = next((card for card in dict(_groups(cards)).get(KINDS[0], []) if card.marks), None)
    groups = _groups([card for card in cards if card is not answer])
    values = {"groups": groups, "answer": answer, "address": address, "others": others, "share": SHARE}
    return template("index.html").render(**values, site=json.dumps(asdict(address)))


def link_page(text: str, card: Card, cards: Sequence[Card], address: Address, others: Sequence[tuple[str, str]]) -> str:
    """The HTML of a page with its regions filled: `head`, `reports` and `source`."""
    macros: Any = template("site.html").module
    regions = {
        "head": macros.head(card, address, SHARE),
        "reports": macros.reports(card, _groups(cards), others),
        "source": macros.source(card, address),
    }
    return _REGION.sub(lambda found: f"<!-- bench:{found[1]} -->{regions[found[1]]}<!-- /bench:{found[1]} -->", text)


def _groups(cards: Sequence[Card]) -> list[tuple[str, list[Card]]]:
    """By kind, the newest first."""
    newest = sorted(cards, key=lambda card: card.created, reverse=True)
    kinds = dict.fromkeys([*KINDS, *sorted(card.kind for card in cards)])
    return [(kind, own) for kind in kinds if (own := [card for card in newest if card.kind == kind])]


def _card(path: Path) -> Card | None:
    """The card in the head of a page; None if it is not one of these pages."""
    content = _meta(path, META)
    try:
        return Card.parse(content) if content else None
    except (ValueError, TypeError, KeyError):
        return None


def _meta(path: Path, name: str) -> str | None:
    head = _Head(name)
    head.feed(path.read_text(encoding="utf-8", errors="replace")[:20_000])
    return head.content


class _Head(HTMLParser):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.content: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name") == self.name:
            self.content = values.get("content")
