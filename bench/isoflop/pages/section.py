"""A section of an isoFLOP report."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.report.figures import Drawing
from bench.report.routing import HeatMap
from bench.report.tables import Table


@dataclass(frozen=True)
class Part:
    """Notes first, then heat maps, drawings and tables; without any of those three it is left out.

    pictures: the heat maps as drawings, for Markdown.
    """

    id: str
    title: str
    notes: list[str]
    drawings: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    heat_maps: list[HeatMap] = field(default_factory=list)
    pictures: list[Drawing] = field(default_factory=list)


def there(*drawings: Drawing | None) -> list[Drawing]:
    """Those that could be drawn."""
    return [drawing for drawing in drawings if drawing is not None]
