"""Data of a page for its scripts: JSON inside the page, so that it also works from a file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

_PLAIN = 50_000  # characters; longer data is compressed


def data_element(name: str, value: Any) -> Markup:
    """A script element of that id with `value`, which `benchData(id)` of data.js reads; large values as gzip."""
    text = script_json(value)
    if len(text) > _PLAIN:
        packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
        return Markup(f'<script type="text/plain" data-gzip id="{escape(name)}">{packed}</script>')
    return Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no tag can start or end in it. Raises ValueError for a NaN."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def short(values: Sequence[float | None], digits: int = 7) -> list[float | None]:
    """To `digits` significant digits; what is not finite is None."""
    return [_short(value, digits) for value in values]


def _short(value: float | None, digits: int) -> float | None:
    rounded = None if value is None else float(f"{value:.{digits}g}")
    if rounded is None or rounded - rounded != 0.0:  # a NaN or an infinity
        return None
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
