"""The site around the pages: their shared files, and the front page with a card for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.records.files import write_atomically

META = "bench-page"  # name of the element in a page's head that holds its card
_HERE = Path(__file__).parent
ASSETS, TEMPLATES = _HERE / "assets", _HERE / "templates"
# Kinds of pages, as headings of the front page; others come last.
KINDS = ("Comparison with dense", "isoFLOP study", "Speed", "Evidence", "Regression gate")


@dataclass(frozen=True)
class Card:
    """What the front page says of a page."""

    name: str
    kind: str
    finding: str
    facts: str
    created: str


def write_assets(reports: Path) -> None:
    """Copy the style sheet and the scripts to `reports`/assets, where they differ."""
    for source in sorted(ASSETS.rglob("*.*")):
        target, content = reports / "assets" / source.relative_to(ASSETS), source.read_text(encoding="utf-8")
        if not target.exists() or target.read_text(encoding="utf-8") != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)


def write_index(reports: Path) -> Path:
    """Write `reports`/index.html: a card for each page in a folder below it, by kind, the newest first."""
    cards = sorted(_cards(reports), key=lambda card: card.created, reverse=True)
    kinds = dict.fromkeys([*KINDS, *sorted(card.kind for card in cards)])
    groups = [(kind, own) for kind in kinds if (own := [card for card in cards if card.kind == kind])]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pictures = {card.name for card in cards if (reports / card.name / "card.svg").exists()}
    others = [name for name in ("dashboard", "docs") if (reports / name / "index.html").exists()]
    text = environment.get_template("index.html.j2").render(groups=groups, pictures=pictures, others=others)
    write_atomically(reports / "index.html", text)
    return reports / "index.html"


def _cards(reports: Path) -> list[Card]:
    return [card for path in sorted(reports.glob("*/index.html")) if (card := _card(path))]


def _card(path: Path) -> Card | None:
    """The card in the head of a page; None if it is not one of these pages."""
    head = _Head()
    head.feed(path.read_text(encoding="utf-8", errors="replace")[:20_000])
    try:
        return Card(**json.loads(head.card)) if head.card else None
    except (ValueError, TypeError):
        return None


class _Head(HTMLParser):
    card: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name") == META:
            self.card = values.get("content")
