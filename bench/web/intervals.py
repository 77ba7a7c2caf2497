"""Intervals on a common scale, as small SVG drawings that keep their text and line widths at any width.

Horizontal places are percentages, so a cell fits a phone and a desktop alike, without scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from bench.formats import decimal
from bench.stats.interval import Interval
from bench.web.figures import themed

_WIDEST = 4.0  # times the median half-width of a scale's intervals: a longer side ends in an arrow
_MARGIN = 4.0  # per cent of the width, on each side
MOST_MARKS = 6  # of a page that have room in its pictures
_TICKS = 4  # at most, so that they have room on a phone


@dataclass(frozen=True)
class Mark:
    """A value with its interval, under a label and in a colour. detectable: the minimum detectable effect."""

    label: str
    interval: Interval
    colour: str
    detectable: float | None = None


class Scale:
    """A horizontal scale that shows `marks` and the values `include`."""

    def __init__(self, marks: Sequence[Mark], include: Sequence[float] = (0.0,)) -> None:
        values = [*include, *(mark.interval.value for mark in marks)]
        reach = _longest([mark.interval for mark in marks])
        for mark in marks:
            values += [_within(end, mark.interval.value, reach) for end in mark.interval.ends or ()]
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 1, high + 1
        self.low, self.high = low, high

    def at(self, value: float) -> float:
        """The place of `value` in per cent of the width; values beyond the scale are at its edges."""
        share = (value - self.low) / (self.high - self.low)
        return round(min(100.0, max(0.0, _MARGIN + (100 - 2 * _MARGIN) * share)), 2)

    @property
    def ticks(self) -> list[float]:
        places = MaxNLocator(_TICKS, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [float(tick) for tick in places if self.low <= tick <= self.high]

    def shows(self, end: float) -> bool:
        slack = 1e-9 * (self.high - self.low)  # of rounding
        return self.low - slack <= end <= self.high + slack


def cell(mark: Mark, scale: Scale, lines: Sequence[float] = (0.0,), band: float | None = None) -> Markup:
    """A dot with its interval. lines: upright references; band: of half-width `band` around 0, the smallest effect of
    interest. A side that is open, or longer than the scale, ends in an arrow.
    """
    parts = []
    if band:
        parts.append(_bar("band", scale.at(-band), scale.at(band), 0, 28))
    if mark.detectable:
        parts.append(_bar("detectable", scale.at(-mark.detectable), scale.at(mark.detectable), 9, 10))
    parts += [f'<line class="zero" x1="{scale.at(line)}%" x2="{scale.at(line)}%" y1="0" y2="28"/>' for line in lines]
    colour = escape(themed(mark.colour))
    if mark.interval.ends:
        low, high = mark.interval.ends
        parts.append(
            f'<line x1="{scale.at(low)}%" x2="{scale.at(high)}%" y1="14" y2="14" stroke="{colour}" stroke-width="2.5"/>'
        )
        parts += [_arrow(0, "6,-5 0,0 6,5", colour)] * (not scale.shows(low))
        parts += [_arrow(100, "-6,-5 0,0 -6,5", colour)] * (not scale.shows(high))
    parts.append(f'<circle cx="{scale.at(mark.interval.value)}%" cy="14" r="5" fill="{colour}"/>')
    return Markup(f'<svg class="interval" width="100%" height="28" aria-hidden="true">{"".join(parts)}</svg>')


def axis(scale: Scale, write: Callable[[float], str] | None = None) -> Markup:
    """The scale's ticks, with as many decimals as their step needs."""
    ticks = scale.ticks
    write = write or (lambda value: decimal(value, decimals(ticks)))
    parts = []
    for tick in ticks:
        place = scale.at(tick)
        parts.append(f'<line class="tick" x1="{place}%" x2="{place}%" y1="0" y2="5"/>')
        parts.append(f'<text x="{place}%" y="18" text-anchor="middle">{escape(write(tick))}</text>')
    return Markup(f'<svg class="interval axis" width="100%" height="22" aria-hidden="true">{"".join(parts)}</svg>')


def decimals(ticks: Sequence[float]) -> int:
    """How many decimals the step between neighbouring `ticks` needs."""
    steps = [abs(after - before) for before, after in zip(ticks, ticks[1:], strict=False) if after != before]
    if not steps:
        return 0
    step, digits = min(steps), 0
    while digits < 6 and abs(round(step, digits) - step) > 1e-3 * step:
        digits += 1
    return digits


def _longest(intervals: Sequence[Interval]) -> float:
    """The longest side that the scale shows whole."""
    sides = [abs(end - interval.value) for interval in intervals for end in interval.ends or () if math.isfinite(end)]
    return _WIDEST * median(sides) if sides else math.inf


def _within(end: float, value: float, reach: float) -> float:
    side = min(abs(end - value), reach)
    return value + math.copysign(side if math.isfinite(side) else 0.0, end - value)


def _bar(name: str, left: float, right: float, top: int, height: int) -> str:
    return f'<rect class="{name}" x="{left}%" width="{round(right - left, 2)}%" y="{top}" height="{height}"/>'


def _arrow(place: int, points: str, colour: str) -> str:
    """A polyline takes no percentages, so it has a frame of its own."""
    return (
        f'<svg x="{place}%" y="14" overflow="visible"><polyline points="{points}" fill="none" stroke="{colour}" '
        'stroke-width="2.5"/></svg>'
    )
