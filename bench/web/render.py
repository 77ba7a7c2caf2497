"""Templates into text: HTML and Markdown, with every value escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from bench.formats import signed, span
from bench.web.intervals import axis, cell

TEMPLATES = Path(__file__).parent / "templates"


@cache
def template(name: str, *folders: Path) -> Template:
    """The template `<name>.j2` of `folders`, or of the frame; it may use the frame and the macros."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": markdown_cell, "fence": _fence, "inline": lambda drawing: Markup(drawing.inline)}
    environment.globals |= {"interval": cell, "axis": axis, "signed": signed, "span": span}
    environment.tests["ends_with"] = str.endswith
    return environment.get_template(f"{name}.j2")


def render(templates: Path, name: str, values: Mapping[str, Any]) -> str:
    """`<name>.j2` of the folder `templates` with `values`."""
    text = template(name, templates).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if name.endswith(".md") else text


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
