"""The study in one figure: every budget's isoFLOP curves on shared axes, their optima joined, method by method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bench.fit.page import REJECTED
from bench.formats import power, scaled
from bench.isoflop.analysis.curves import Curve, curves
from bench.isoflop.analysis.results import Results, title
from bench.isoflop.pages.section import UNIT
from bench.web.figures import MUTED, SURFACE, Drawing, canvas, error_bars, finish, method_colours, styled
from bench.stats.interval import Interval

_SHOWN = 1.07  # times the worst of the lowest losses: the upper end of the frame
_GAP = 0.055  # of the frame's height, between labels
_WIDE, _NARROW = (12.2, 4.0), (4.4, 3.7)  # inches
# How to read it, once for both widths.
READING = (
    "A dot is a run, a curve a budget, a ringed dot its optimum (95 % CI); optima of a method are joined. Hollow: the "
    "fit was rejected, so the best run stands for the optimum. Dashed: rejected fits. Arrow: the best size may lie "
    "beyond the grid."
)


@dataclass(frozen=True)
class _Optimum:
    """The best size at a budget and its loss; from the best run where the fit was rejected."""

    size: float
    loss: Interval
    fitted: bool
    beyond: int  # -1: the best size may be smaller than any that was run; 1: larger; 0: neither


@styled
def hero_figures(results: Results) -> list[Drawing]:
    """The figure for a wide page and for a phone."""
    fitted = curves(results, "forward_flops")
    return [_figure(results, fitted, *each) for each in (("isoflop", *_WIDE), ("isoflop_narrow", *_NARROW))]


def _figure(results: Results, fitted: dict[tuple[str, float], Curve], name: str, width: float, height: float) -> Drawing:
    colours = method_colours(results.methods)
    figure, axes = canvas(width, height)
    ends = {}
    for method in results.methods:
        best = [_optimum(results, fitted, method, budget) for budget in results.budgets]
        for budget in results.budgets:
            own, curve = results.cell(method, budget), fitted.get((method, budget))
            axes.scatter(own["forward_flops"], own["loss"], s=9, color=colours[method], alpha=0.45, linewidths=0)
            if curve is not None:
                ends[method] = _draw_curve(axes, curve, colours[method])
        _draw_optima(axes, [each for each in best if each], colours[method])
    sized = results.sized
    lowest = sized.groupby(["method", "budget"])["loss"].min()
    low, high = float(lowest.min()), float(lowest.max()) * _SHOWN
    margin = 0.06 * (high - low)
    axes.set_ylim(low - 1.5 * margin, high)
    axes.set_xscale("log")
    least, most = float(sized["forward_flops"].min()), float(sized["forward_flops"].max())
    axes.set_xlim(least * 0.93, most * (1.16 if width > 6 else 1.75))
    _label_ends(axes, ends, colours)
    _label_budgets(axes, results)
    axes.xaxis.set_major_locator(_ticks(least, most))
    axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.minorticks_off()
    axes.set_xlabel("forward FLOPs/token")
    axes.set_ylabel(f"validation loss, {UNIT}")
    above = int((sized["loss"] > high).sum())
    budgets = ", ".join(map(power, results.budgets))
    return finish(
        figure, name, "Loss against size at equal training FLOPs",
        f"Validation loss against forward FLOPs/token at {budgets} training FLOPs, with the optima of each method.",
        READING + (f" Runs above the frame: {above}." if above else ""),
    )  # fmt: skip


def _optimum(
    results: Results, fitted: dict[tuple[str, float], Curve], method: str, budget: float
) -> _Optimum | None:
    curve, best = fitted.get((method, budget)), results.best(method, budget)
    if curve is not None and curve.inside:
        at, loss = curve.optimum
        sizes = np.percentile(curve.unbounded_optimum[1:], [2.5, 97.5], method="nearest") if len(at) > 1 else [0.0, 0.0]
        ends = np.nanpercentile(loss[1:], [2.5, 97.5]) if len(loss) > 1 else (None, None)
        beyond = int(np.isposinf(sizes[1])) - int(np.isneginf(sizes[0]))
        return _Optimum(float(np.exp(at[0])), Interval(float(loss[0]), *ends), True, beyond)
    if best.empty:
        return None
    sizes = results.cell(method, budget)["forward_flops"]
    size = float(best["forward_flops"].iloc[0])
    return _Optimum(size, Interval(float(best["loss"].mean())), False, int(size == sizes.max()) - int(size == sizes.min()))


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> tuple[float, float]:
    """Returns its right end."""
    sizes = np.linspace(*curve.budget.ends, 60)
    losses = np.polynomial.polynomial.polyval(sizes - curve.budget.centre, curve.coefficients)
    style: dict[str, Any] = {"alpha": 0.55} if curve.inside else REJECTED
    axes.plot(np.exp(sizes), losses, color=colour, linewidth=1, **style)
    return float(np.exp(sizes[-1])), float(losses[-1])


def _draw_optima(axes: Axes, best: Sequence[_Optimum], colour: str) -> None:
    axes.plot([each.size for each in best], [each.loss.value for each in best], color=colour, linewidth=2.4, zorder=3)
    for each in best:
        inside = {"markerfacecolor": colour if each.fitted else SURFACE, "markeredgecolor": colour}
        ring = {"markeredgewidth": 1.8, "markersize": 7.5, "zorder": 4}
        error_bars(axes, [each.size], [each.loss], colour, **inside, **ring)
        if each.beyond:
            to = each.size * 1.16**each.beyond
            axes.annotate("", (to, each.loss.value), (each.size, each.loss.value),
                          arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.8, "shrinkA": 4})  # fmt: skip


def _label_ends(axes: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Names at the right ends of the curves of the largest budget, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    x = max((end[0] for end in ends.values()), default=1.0) * 1.03
    below = -np.inf
    for method, (_, loss) in sorted(ends.items(), key=lambda item: item[1][1]):
        below = max(below + _GAP * (high - low) * (4.0 / axes.figure.get_figheight()), min(loss, high))
        axes.text(x, below, title(method), color=colours[method], va="center", weight="bold")


def _label_budgets(axes: Axes, results: Results) -> None:
    """Each budget above the left ends of its curves."""
    _, high = axes.get_ylim()
    for budget in results.budgets:
        own = results.sized[results.sized["budget"] == budget]
        smallest = own[own["forward_flops"] == own["forward_flops"].min()]
        axes.annotate(power(budget), (float(smallest["forward_flops"].iloc[0]), min(high, float(smallest["loss"].mean()))),
                      (0, 6), textcoords="offset points", color=MUTED, ha="center", va="bottom")  # fmt: skip


def _ticks(least: float, most: float) -> Any:
    """At 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import FixedLocator

    powers = 10.0 ** np.arange(np.floor(np.log10(least)), np.ceil(np.log10(most)) + 1)
    return FixedLocator([float(step * each) for each in powers for step in (1, 2, 5)])
