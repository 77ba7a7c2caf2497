"""The study in one figure: every budget's isoFLOP curves on shared axes, their optima joined, method by method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from bench.fit.page import REJECTED
from bench.formats import power, scaled
from bench.isoflop.analysis.curves import Curve, curves, with_draws
from bench.isoflop.analysis.results import Results, title
from bench.isoflop.pages.section import UNIT
from bench.stats.interval import Interval
from bench.web.figures import MUTED, SURFACE, Drawing, canvas, error_bars, finish, method_colours, styled

_SHOWN = 1.07  # times the worst of the lowest losses: the upper end of the frame
_WIDE, _NARROW = (12.2, 3.7), (4.4, 3.5)  # inches
READING = (
    "A small dot is a run, a curve a method at one budget, a large dot its optimum (95 % CI); a method’s optima are "
    "joined. Dashed and hollow: fit rejected, so the best shape stands for the optimum. Arrow: the best size may lie "
    "beyond the grid."
)

Curves = dict[tuple[str, float], Curve]


@dataclass(frozen=True)
class _Optimum:
    """The best size at a budget and its loss; from the best run where the fit was rejected."""

    size: float
    loss: Interval
    fitted: bool
    open: list[int]  # -1: the best size may be smaller than any that was run; 1: larger


@styled
def hero_figures(results: Results) -> list[Drawing]:
    """The figure for a wide page and for a phone."""
    fitted = curves(results, "forward_flops")
    return [_figure(results, fitted, *each) for each in (("isoflop", *_WIDE), ("isoflop_narrow", *_NARROW))]


def _figure(results: Results, fitted: Curves, name: str, width: float, height: float) -> Drawing:
    colours = method_colours(results.methods)
    figure, axes = canvas(width, height)
    ends, low = {}, float(results.sized["loss"].min())
    for method in results.methods:
        best = [each for budget in results.budgets if (each := _optimum(results, fitted, method, budget))]
        for budget in results.budgets:
            own, curve = results.cell(method, budget), fitted.get((method, budget))
            axes.scatter(own["forward_flops"], own["loss"], s=9, color=colours[method], alpha=0.45, linewidths=0)
            if curve is not None:
                ends[method] = _draw_curve(axes, curve, colours[method])
        _draw_optima(axes, best, colours[method], 7.0 if width > height * 2 else 5.5)
        low = min([low, *(each.loss.low for each in best if each.loss.low is not None)])
    high = _SHOWN * float(results.sized.groupby(["method", "budget"])["loss"].min().max())
    axes.set_ylim(low - 0.04 * (high - low), high)
    axes.set_xscale("log")
    least, most = float(results.sized["forward_flops"].min()), float(results.sized["forward_flops"].max())
    axes.set_xlim(least * 0.8, most * (1.22 if width > height * 2 else 2.4))
    _label_ends(axes, ends, colours, 0.22 / height)
    _label_budgets(axes, results)
    powers = 10.0 ** np.arange(np.floor(np.log10(least)), np.ceil(np.log10(most)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([float(step * each) for each in powers for step in (1, 2, 5)]))
    axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
    axes.minorticks_off()
    axes.set_xlabel("forward FLOPs/token")
    axes.set_ylabel(f"validation loss, {UNIT}")
    above = int((results.sized["loss"] > high).sum())
    budgets = ", ".join(map(power, results.budgets))
    return finish(
        figure, name, "Loss against size at equal training FLOPs",
        f"Validation loss against forward FLOPs/token at {budgets} training FLOPs, with the optima of each method.",
        READING + (f" Runs above the frame: {above}." if above else ""),
    )  # fmt: skip


def _optimum(results: Results, fitted: Curves, method: str, budget: float) -> _Optimum | None:
    curve, best = fitted.get((method, budget)), results.best(method, budget)
    if curve is not None and curve.inside:
        at, loss = curve.optimum
        anywhere = with_draws(curve.unbounded_optimum)
        ways = [way for way, end in ((-1, anywhere.low), (1, anywhere.high)) if end is not None and np.isinf(end)]
        ends = np.nanpercentile(loss[1:], [2.5, 97.5]) if len(loss) > 1 else (None, None)
        return _Optimum(float(np.exp(at[0])), Interval(float(loss[0]), *ends), True, ways)
    if best.empty:
        return None
    sizes, size = results.cell(method, budget)["forward_flops"], float(best["forward_flops"].iloc[0])
    ways = [way for way, end in ((-1, sizes.min()), (1, sizes.max())) if size == end]
    return _Optimum(size, Interval(float(best["loss"].mean())), False, ways)


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> tuple[float, float]:
    """Returns its right end."""
    sizes = np.linspace(*curve.budget.ends, 60)
    losses = np.polynomial.polynomial.polyval(sizes - curve.budget.centre, curve.coefficients)
    style: dict[str, Any] = {"alpha": 0.55} if curve.inside else REJECTED
    axes.plot(np.exp(sizes), losses, color=colour, linewidth=1, **style)
    return float(np.exp(sizes[-1])), float(losses[-1])


def _draw_optima(axes: Axes, best: Sequence[_Optimum], colour: str, marker: float) -> None:
    axes.plot([each.size for each in best], [each.loss.value for each in best], color=colour, linewidth=2.2, zorder=3)
    for each in best:
        style: dict[str, Any] = {"markerfacecolor": colour if each.fitted else SURFACE, "markeredgecolor": colour}
        error_bars(axes, [each.size], [each.loss], colour, markeredgewidth=1.8, markersize=marker, zorder=4, **style)
        for way in each.open:
            arrow = {"arrowstyle": "<-", "color": colour, "linewidth": 1.8}
            at = (each.size, each.loss.value)
            axes.annotate("", at, (26 * way, 0), textcoords="offset points", arrowprops=arrow)


def _label_ends(axes: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, str], gap: float) -> None:
    """Names at the right ends of the curves of the largest budget, `gap` of the frame's height apart or more."""
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda method: ends[method][1])
    wanted = [min(ends[method][1], high) for method in order]
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap * (high - low)) if places else place)
    moved = float(np.mean(places) - np.mean(wanted)) if places else 0.0
    for method, place in zip(order, places, strict=True):
        x = max(x for x, _ in ends.values()) * 1.07
        axes.text(x, max(place - moved, low), title(method), color=colours[method], va="center", weight="bold")


def _label_budgets(axes: Axes, results: Results) -> None:
    """Each budget above the right end of its first method's curve, Dense's where there is one."""
    low, high = axes.get_ylim()
    for budget in results.budgets:
        own = next(cell for method in results.methods if len(cell := results.cell(method, budget)))
        largest = own[own["forward_flops"] == own["forward_flops"].max()]
        at = (float(largest["forward_flops"].iloc[0]), min(0.06 * low + 0.94 * high, float(largest["loss"].max())))
        words = f"{power(budget)} FLOPs" if budget == results.budgets[0] else power(budget)
        axes.annotate(words, at, (-8, 6), textcoords="offset points", color=MUTED, ha="right", va="bottom")
