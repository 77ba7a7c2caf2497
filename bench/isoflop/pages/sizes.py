"""Loss against size at equal training FLOPs: curves, optima, and best shapes with several seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.fit.page import REJECTED
from bench.formats import decimal, power, scaled
from bench.isoflop.analysis.curves import Curve, Size, curves
from bench.isoflop.analysis.differences import NEAR_EDGE, best_difference, edge
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.pages.section import NAMED, UNIT, interval_columns, named, shape_of, there
from bench.stats.fits import Fits
from bench.stats.interval import Interval
from bench.web.figures import DENSE, MUTED, Drawing, canvas, error_bars, finish, method_colours, slug, styled
from bench.web.page import Part
from bench.web.tables import Table

SIZES: dict[Size, str] = {
    "params_total": "total parameters",
    "params_active": "active parameters",
    "forward_flops": "forward FLOPs/token",
}
_MOST_SHOWN = 1.15  # of normalised losses
_MARKERS = ("o", "s", "^", "D", "v", "P")


def sizes_part(results: Results, fits: Fits) -> Part:
    """The isoFLOP curves themselves."""
    notes = [
        "A dot is a run, a circle the optimum with the 95 % CI of its loss, a dashed line a rejected fit: its minimum "
        "is outside the grid (edge), below the loss of every size by more than noise (poor fit), or none (concave).",
    ]
    return Part(
        "curves", "Loss against size", notes,
        there(*size_figures(results, "params_total"), normalised_figure(results)),
        [optima_table(results, fits), seeds_table(results)], folded=_summary(fits),
    )  # fmt: skip


def _summary(fits: Fits) -> str:
    optima = [optimum for own in fits.optima.values() for optimum in own.optima]
    inside = sum(optimum.status == "ok" for optimum in optima)
    return f"Every curve, optima and best shapes by total parameters: {inside} of {len(optima)} fits have an optimum"


@styled
def size_figures(results: Results, size: Size) -> list[Drawing]:
    """Loss against a size, a figure per budget: runs, parabolas and optima."""
    colours = method_colours(results.methods)
    fitted = curves(results, size)
    found = []
    for budget in results.budgets:
        figure, axes = canvas()
        for method in results.methods:
            own = results.cell(method, budget)
            axes.scatter(
                own[size], own["loss"], s=10, color=colours[method], alpha=0.6, linewidths=0, label=title(method)
            )
            curve = fitted.get((method, budget))
            if curve is not None:
                _draw_curve(axes, curve, colours[method])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(SIZES[size])
        axes.set_ylabel(f"validation loss, {UNIT}")
        axes.legend(ncols=2)
        found.append(
            finish(
                figure,
                f"loss_{size}_{slug(f'{budget:.3g}')}",
                f"{power(budget)} training FLOPs",
                f"Validation loss against {SIZES[size]} at {power(budget)} training FLOPs.",
                "",
            )
        )
    return found


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    sizes = np.linspace(curve.budget.log_params.min(), curve.budget.log_params.max(), 80)
    z = sizes - curve.budget.centre
    style: dict[str, Any] = {} if curve.inside else REJECTED
    axes.plot(
        np.exp(sizes), np.polynomial.polynomial.polyval(z, curve.coefficients), color=colour, linewidth=1, **style
    )
    if curve.inside:
        at, loss = curve.optimum
        ends = np.nanpercentile(loss[1:], [2.5, 97.5]) if len(at) > 1 else (None, None)
        error_bars(axes, [np.exp(at[0])], [Interval(loss[0], *ends)], colour, markersize=6)


@styled
def normalised_figure(results: Results) -> Drawing | None:
    """Loss over dense's best at that budget, against forward FLOPs over those of dense's best."""
    colours, fitted = method_colours(results.methods), curves(results, "forward_flops")
    figure, axes = canvas(height=4.2)
    drawn, above = False, 0
    for marker, budget in zip(_MARKERS, results.budgets, strict=False):
        dense = fitted.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            continue
        at, loss = (float(each[0]) for each in dense.optimum)
        for method in results.methods:
            own = results.cell(method, budget).groupby("forward_flops")["loss"].mean()
            x, y = own.index.to_numpy(dtype=float) / np.exp(at), own.to_numpy() / loss
            above += int((y > _MOST_SHOWN).sum())
            axes.plot(x, y, marker=marker, markersize=4, color=colours[method], linewidth=0.8, alpha=0.85)
            drawn = True
    if not drawn:
        return None
    for method in results.methods:
        axes.plot([], [], color=colours[method], label=title(method))
    for marker, budget in zip(_MARKERS, results.budgets, strict=False):
        axes.plot([], [], marker, color=MUTED, markersize=4, label=f"{power(budget)} FLOPs")
    axes.axhline(1, color=DENSE, linewidth=1)
    axes.axvline(1, color=DENSE, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("forward FLOPs/token over Dense’s optimum")
    axes.set_ylim(top=min(axes.get_ylim()[1], _MOST_SHOWN))  # a few runs that are far too large would flatten the rest
    axes.set_ylabel("loss over Dense’s best")
    figure.legend(loc="outside lower center", ncols=2)
    return finish(
        figure, "normalised", "Normalised loss against forward FLOPs",
        "Validation loss over Dense's best at that budget, against forward FLOPs/token over those of its optimum.",
        "Below 1 a size is better than Dense’s best; left of 1 it is cheaper to run."
        + (f" Above the frame: {above}." if above else ""),
    )  # fmt: skip


def optima_table(results: Results, fits: Fits) -> Table:
    """A row per method and budget; intervals that go beyond the grid are open."""
    rows, data = [], []
    for method, own in fits.optima.items():
        for optimum in own.optima:
            values = ((optimum.params, scaled), (optimum.loss, decimal))
            cells = [in_words(value if optimum.status == "ok" else None, write) for value, write in values]
            status = f"{optimum.status}, {NEAR_EDGE}" if optimum.near_edge else optimum.status
            rows.append([named(method, optimum.flops), *cells, status])
            data.append(
                {"method": method, "flops": optimum.flops, "points": optimum.points, "status": optimum.status,
                 "near_edge": optimum.near_edge}
                | interval_columns(optimum.params, "params") | interval_columns(optimum.tokens, "tokens")
                | interval_columns(optimum.loss, "loss")
            )  # fmt: skip
    caption = (
        "Optima of the parabolas (95 % bootstrap CI over runs). “Or more” and “or less” reach beyond the grid. "
        "Near grid edge: at most one size from the smallest or largest."
    )
    return Table("optima", caption, [NAMED, "total params", f"loss, {UNIT}", "status"], rows, pd.DataFrame(data))


def seeds_table(results: Results) -> Table:
    """The best shapes run with several seeds, against dense's."""
    rows, data = [], []
    for budget in results.budgets:
        for method in results.methods:
            best = results.best(method, budget)
            if best.empty:
                continue
            losses = best["loss"].to_numpy(dtype=float)
            value, every = (
                None if method == REFERENCE else best_difference(results, method, REFERENCE, budget, all_seeds)
                for all_seeds in (False, True)
            )
            detectable = value.minimum_detectable if value else None
            spread = float(losses.std(ddof=1)) if len(losses) > 1 else None
            shape = shape_of(best)
            where = edge(results, method, budget)
            shown = f"{shape}, {where}".removesuffix(", ")
            rows.append([named(method, budget), shown, decimal(float(losses.mean())), decimal(spread)])
            data.append(
                {"method": method, "budget": budget, "shape": shape, "seeds": len(losses), "loss": losses.mean(),
                 "sd": spread, "detectable": detectable, "edge": where}
                | interval_columns(value, "minus_dense") | interval_columns(every, "every_seed")
            )  # fmt: skip
    caption = (
        "Best shapes (layers × width) on all seeds. Seed 0 chose the shape, which flatters it, so differences from "
        "Dense use seeds not used for model selection. At grid edge: a bound."
    )
    columns = [NAMED, "shape", f"loss, {UNIT}", "sd over seeds"]
    return Table("seeds", caption, columns, rows, pd.DataFrame(data))
