"""The picture that a link to a page shows elsewhere (og:image), 1200 by 630 pixels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.web.figures import INK, LINE, MUTED, SURFACE, error_bars, styled
from bench.web.intervals import MOST_MARKS, Mark, Scale

SHARE = "share.png"


@styled
def share_picture(kind: str, finding: str, marks: Sequence[Mark], line: float) -> bytes:
    """A PNG with the finding in large letters, and under it the intervals that it rests on."""
    figure = Figure(figsize=(12, 6.3), dpi=100)
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    figure.text(0.05, 0.93, f"bench · {kind}", fontsize=20, color=MUTED, va="top")
    figure.text(0.05, 0.85, textwrap.fill(finding, 52), fontsize=31, color=INK, va="top", weight="bold")
    shown = list(marks)[:MOST_MARKS]
    if shown:
        axes = figure.add_axes((0.28, 0.09, 0.66, 0.08 + 0.06 * len(shown)))
        scale = Scale(shown, [line])
        for row, mark in enumerate(shown):
            error_bars(axes, [row], [mark.interval], mark.colour, horizontal=True, markersize=11, elinewidth=4)
        axes.axvline(line, color=MUTED, linewidth=1.5)
        margin = 0.05 * (scale.high - scale.low)
        axes.set_xlim(scale.low - margin, scale.high + margin)
        axes.set_yticks(np.arange(len(shown)), [mark.label for mark in shown], fontsize=20, color=INK)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=16, color=LINE)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="y", visible=False)
        axes.spines[:].set_visible(False)
        axes.set_facecolor(SURFACE)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()
