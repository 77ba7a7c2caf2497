"""A table of a page: text for people, and the same numbers unrounded for its CSV file."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from bench.formats import DASH

_NUMBER = re.compile(r"[+−-]?(\d[\d,]*(\.\d+)?|∞)(e[+−-]?\d+)?([\s×*%/]|$)")


@dataclass(frozen=True)
class Table:
    """`rows` are for people, first cell the row's name; `data` is for the CSV file. No rows: not shown. folded: shown
    as one line that opens on a click. text: cells are words, so none is aligned to the right.
    """

    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    data: pd.DataFrame
    folded: bool = False
    text: bool = False

    @property
    def right(self) -> list[bool]:
        """For each column, whether it is aligned to the right: most of its cells are numbers."""
        aligned = []
        for column in range(len(self.columns)):
            cells = [row[column] for row in self.rows if row[column] not in ("", DASH)]
            numbers = sum(bool(_NUMBER.match(cell)) for cell in cells)
            aligned.append(column > 0 and not self.text and 2 * numbers >= len(cells))
        return aligned
