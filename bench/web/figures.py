"""The look of every figure: one style, one error bar, a colour per method, SVG that follows the page's theme.

Figures are drawn without pyplot, so no state outlives a figure. They are saved without dates or random ids, so
the same records give the same bytes. Text stays text in the SVG.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from bench.stats.interval import Interval

INK, MUTED, LINE, SURFACE = "#1f2733", "#5b6675", "#d5dae1", "#ffffff"

styled = rc_context(
    {
        "svg.hashsalt": "bench",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 10.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.facecolor": SURFACE,
        "axes.titlesize": 10.5,
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
        "legend.fontsize": 10.5,
        "hatch.linewidth": 0.6,
    }
)

GOOD, BAD = "#1d7a46", "#b3392f"  # a target met, and missed
_GAP, _WIDE = 8.0, 400.0  # points: between the drawings of a sheet; from this width on, one drawing to a row

# Okabe and Ito's colours, distinct to colour-blind readers. A method keeps its colour in every figure; keys are slugs.
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
# The pages' style sheet sets these variables for light and dark: `--c-` and the digits, for the colour of a method.
_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
} | {colour: f"var(--c-{colour[1:]})" for colour in {*_METHOD_COLOURS.values(), *_SPARE_COLOURS}}


@dataclass(frozen=True)
class Drawing:
    """A finished figure. `alt` says in words what it shows, `caption` how to read it.

    name: of its file, without the suffix; it may contain a sub-folder and a slash.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The SVG for use inside a page: scalable, with ids of its own and the page's neutral colours."""
        body = self.nested.replace("<svg", '<svg aria-hidden="true"', 1)
        for colour, variable in _THEME.items():
            body = body.replace(colour, variable)
        return body

    @property
    def nested(self) -> str:
        """The SVG for use inside another: without header, metadata and size, with ids of its own."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        body = re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", body, count=1)
        own = re.sub(r"[^\w-]", "-", self.name)
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", body)


def sheet(name: str, drawings: Sequence[Drawing]) -> Drawing:
    """Several drawings in one file, in one or two columns, each below its title; one drawing stays as it is."""
    if len(drawings) == 1:
        return drawings[0]
    sizes = [[float(side) for side in re.findall(r'viewBox="0 0 (\S+) ([^"]+)"', each.svg)[0]] for each in drawings]
    across = max(width for width, _ in sizes)
    columns = 2 if across < _WIDE else 1
    top, cells = 0.0, []
    for place, (each, (width, height)) in enumerate(zip(drawings, sizes, strict=True)):
        column = place % columns
        left = column * (across + 2 * _GAP)
        cells.append(f'<text x="{left + _GAP:g}" y="{top + 1.5 * _GAP:g}">{html.escape(each.title)}</text>')
        frame = f'x="{left:g}" y="{top + 2 * _GAP:g}" width="{width:g}" height="{height:g}"'
        cells.append(each.nested.replace("<svg", f"<svg {frame}", 1))
        if column == columns - 1 or each is drawings[-1]:
            top += max(height for _, height in sizes[place - column : place + 1]) + 3 * _GAP
    width = columns * across + 2 * _GAP * (columns - 1)
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{top:g}pt" viewBox="0 0 {width:g} {top:g}" '
        f'font-family="sans-serif" font-size="10" fill="{INK}">\n'
        f'<rect width="100%" height="100%" fill="{SURFACE}"/>\n' + "\n".join(cells) + "\n</svg>\n"
    )
    titles = "; ".join(each.title for each in drawings)
    captions = " ".join(dict.fromkeys(each.caption for each in drawings if each.caption))
    return Drawing(name, titles, " ".join(each.alt for each in drawings), captions, svg)


def canvas(width: float = 4.4, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` inches, small enough to be read on a phone."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def finish(figure: Figure, name: str, title: str, alt: str, caption: str) -> Drawing:
    """Render `figure` as SVG."""
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(name, title, alt, caption, svg.getvalue())


def error_bars(
    axes: Axes,
    at: Sequence[float] | np.ndarray,
    intervals: Sequence[Interval],
    colour: str,
    horizontal: bool = False,
    **style: Any,
) -> None:
    """A dot per value with the bar of its interval; an open or unknown end has no bar.

    at: the dots' places on the other axis, which is the vertical one where `horizontal`. style: of the dots, and
    `linestyle` to join them.
    """
    values = [each.value for each in intervals]
    below = [_reach(each.low, each.value) for each in intervals]
    above = [_reach(each.value, each.high) for each in intervals]
    dots: dict[str, Any] = {
        "marker": "o",
        "markersize": 4,
        "linestyle": "none",
        "capsize": 2,
        "elinewidth": 1.5,
    } | style
    if horizontal:
        axes.errorbar(values, at, xerr=[below, above], color=colour, **dots)
    else:
        axes.errorbar(at, values, yerr=[below, above], color=colour, **dots)


def share_cells(axes: Axes, shares: np.ndarray, colour: str, fontsize: float, labelled: bool = True) -> None:
    """A cell for each share (rows, columns), the darker the larger, and in it, where `labelled`, its percentage."""
    palette = LinearSegmentedColormap.from_list("shares", ["#ffffff", colour])
    axes.pcolormesh(shares, cmap=palette, vmin=0, vmax=float(shares.max()) or 1.0, edgecolors="#ffffff", linewidth=1)
    for (row, column), share in np.ndenumerate(shares) if labelled else ():
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": "#101418", "fontsize": fontsize}
        axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", **style)
    axes.set_ylim(len(shares), 0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _reach(start: float | None, end: float | None) -> float:
    """The length of one side of a bar: 0 where that side is open."""
    return max(0.0, end - start) if start is not None and end is not None and math.isfinite(end - start) else 0.0


def method_colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method: its own in any spelling, or the next unused one for a method not known here."""
    colours = {label: _METHOD_COLOURS[slug(label)] for label in labels if slug(label) in _METHOD_COLOURS}
    for label in labels:
        if label not in colours:
            free = [colour for colour in _SPARE_COLOURS if colour not in colours.values()]
            colours[label] = free[0] if free else _SPARE_COLOURS[len(colours) % len(_SPARE_COLOURS)]
    return colours


def themed(colour: str) -> str:
    """A colour of this module as the page's style sheet knows it, which has a paler one for a dark page."""
    return _THEME.get(colour, colour)


def wrapped(label: str) -> str:
    """A method's label in lines short enough for a row of a bar chart."""
    return textwrap.fill(label, 20)


def slug(text: str) -> str:
    """`text` as a part of a file name: lower-case letters, digits, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "method"
