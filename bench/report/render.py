"""Pages and their Markdown twins from the templates beside this file; everything put into them is escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, templates: Path = _TEMPLATES, **values: Any) -> str:
    """`<template>.j2` of the folder `templates` with `values`; a page has its style inside it and fetches nothing."""
    environment = Environment(
        loader=FileSystemLoader([templates, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _markdown_cell, "fence": _fence, "inline": lambda drawing: Markup(drawing.inline)}
    style = Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))
    text = environment.get_template(f"{template}.j2").render(style=style, **values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if template.endswith(".md") else text


def _markdown_cell(text: str) -> Markup:
    """`text` as inert Markdown on one line: HTML, tables, links, emphasis, quotes and code in it stay plain characters.

    No tag and no entity begins without `<` or `&`; a `>` means something at the beginning of a line alone.
    """
    escaped = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return Markup(re.sub(r"([\\`*_\[\]|~]|^>)", r"\\\1", escaped))


def _fence(text: str) -> Markup:
    """`text` as a Markdown code block whose fence is longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")
