"""How every figure looks and is written: one style, colours by method, SVG that follows the page's theme.

Figures are drawn without pyplot, so that no state outlives a figure, and saved without dates or random ids, so
that the same records give the same bytes. Text stays text in the SVG.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, LINE, SURFACE = "#1f2733", "#5b6675", "#d5dae1", "#ffffff"
# What these colours become in a page, where a style sheet sets them for light and dark.
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", SURFACE: "var(--surface)"}

styled = rc_context(
    {
        "svg.hashsalt": "bench",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.facecolor": SURFACE,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "figure.facecolor": SURFACE,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "hatch.linewidth": 0.6,
    }
)

# Okabe and Ito's colours, which colour-blind readers can tell apart; a method keeps its own in every figure.
DENSE = "#7f8896"
_METHOD_COLOURS = {
    "dense": DENSE,
    "mod": "#d55e00",
    "moe": "#0072b2",
    "mode_staged": "#009e73",
    "mode_integrated": "#cc79a7",
    "expert_choice": "#56b4e9",
    "mod_random": "#e69f00",
    "shallow": "#8c6bb1",
}
_SPARE_COLOURS = ("#009e73", "#cc79a7", "#0072b2", "#d55e00", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d", "#4d9221")


@dataclass(frozen=True)
class Drawing:
    """A finished figure. `alt` says in words what it shows, `caption` how to read it."""

    name: str
    title: str
    alt: str
    caption: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        """The SVG for the inside of a page: scalable, its ids its own, its neutral colours the page's."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        body = re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", body, count=1)
        body = body.replace("<svg", '<svg aria-hidden="true"', 1)
        body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", body)
        for colour, variable in _THEME.items():
            body = body.replace(colour, variable)
        return body


def canvas(width: float = 4.4, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` inches, small enough to be read on a phone."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def finish(figure: Figure, name: str, title: str, alt: str, caption: str) -> Drawing:
    """Render `figure` as SVG and PNG."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Drawing(name, title, alt, caption, svg.getvalue(), png.getvalue())


def method_colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method: its own in any spelling, or the next unused one for a method not known here."""
    colours = {label: _METHOD_COLOURS[slug(label)] for label in labels if slug(label) in _METHOD_COLOURS}
    for label in labels:
        if label not in colours:
            free = [colour for colour in _SPARE_COLOURS if colour not in colours.values()]
            colours[label] = free[0] if free else _SPARE_COLOURS[len(colours) % len(_SPARE_COLOURS)]
    return colours


def wrapped(label: str) -> str:
    """A method's label in lines short enough to stand beside a bar."""
    return textwrap.fill(label, 20)


def slug(text: str) -> str:
    """`text` as a part of a file name: lower-case letters, digits, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "method"
