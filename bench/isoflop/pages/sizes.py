"""Loss against size at equal training FLOPs: curves, optima, and the best shapes with several seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.fit.page import REJECTED
from bench.formats import decimal, power, scaled
from bench.isoflop.analysis.curves import Curve, Size, curves
from bench.isoflop.analysis.differences import best_difference
from bench.isoflop.analysis.edges import NEAR_EDGE, edge
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.pages.cells import cell, difference_cell, interval_columns
from bench.isoflop.pages.section import Part, there
from bench.report.figures import DENSE, MUTED, Drawing, canvas, error_bars, finish, method_colours, slug, styled
from bench.report.tables import Table
from bench.stats.fits import Fits
from bench.stats.interval import Interval

_SIZES: dict[Size, str] = {
    "params_total": "parameters stored",
    "params_active": "parameters a token meets",
    "forward_flops": "forward FLOPs a token",
}
_MOST_SHOWN = 1.15  # of normalised losses
_MARKERS = ("o", "s", "^", "D", "v", "P")


def sizes_part(results: Results, fits: Fits) -> Part:
    """The isoFLOP curves themselves."""
    notes = [
        "Every run of a budget spends the same training FLOPs, to within a step: a larger model sees fewer tokens. "
        "Below: the optimum that a parabola finds, for each method and budget.",
    ]
    return Part(
        "curves", "Loss against size at equal training FLOPs", notes,
        there(*size_figures(results, "params_total"), normalised_figure(results)),
        [optima_table(results, fits), seeds_table(results)],
    )  # fmt: skip


@styled
def size_figures(results: Results, size: Size) -> list[Drawing]:
    """Loss against a size, a figure a budget: runs, parabolas, and the minima that count."""
    colours = method_colours(results.methods)
    fitted = curves(results, size)
    found = []
    for budget in results.budgets:
        figure, axes = canvas()
        for method in results.methods:
            own = results.cell(method, budget)
            axes.scatter(own[size], own["loss"], s=10, color=colours[method], alpha=0.6, linewidths=0, label=method)
            curve = fitted.get((method, budget))
            if curve is not None:
                _draw_curve(axes, curve, colours[method])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(_SIZES[size])
        axes.set_ylabel("held-out loss, nats a token")
        axes.legend(ncols=2)
        found.append(
            finish(
                figure,
                f"loss_{size}_{slug(f'{budget:.3g}')}",
                f"{power(budget)} FLOPs a run",
                f"Held-out loss against {_SIZES[size]} at {power(budget)} training FLOPs.",
                "A dot a run. Circles: minima that count; bars: the 95 % interval of their loss. Dashed, pale: "
                "parabolas "
                "whose minimum does not, for it is outside the sizes that were run, below what any of them reached, or "
                "none, where they open downwards.",
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
    figure, axes = canvas(5.2, 3.4)
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
        axes.plot([], [], color=colours[method], label=method)
    for marker, budget in zip(_MARKERS, results.budgets, strict=False):
        axes.plot([], [], marker, color=MUTED, markersize=4, label=f"{power(budget)} FLOPs")
    axes.axhline(1, color=DENSE, linewidth=1)
    axes.axvline(1, color=DENSE, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("forward FLOPs a token, over those of dense’s optimum")
    axes.set_ylim(top=min(axes.get_ylim()[1], _MOST_SHOWN))  # a few runs far too large would leave the rest a line
    axes.set_ylabel("loss over dense’s best")
    axes.legend(ncols=2)
    return finish(
        figure, "normalised", "Normalised loss against normalised FLOPs",
        "Held-out loss over dense's best at that budget, against forward FLOPs a token over those of dense's optimum.",
        "Below 1 on the vertical axis a run is better than dense’s best of equal training FLOPs; left of 1 it is "
        "cheaper to run." + (f" Above the frame: {above}." if above else ""),
    )  # fmt: skip


def optima_table(results: Results, fits: Fits) -> Table:
    """A row a method and budget; intervals are open where they go beyond the sizes that were run."""
    rows, data = [], []
    for method, own in fits.optima.items():
        for optimum in own.optima:
            values = ((optimum.params, scaled), (optimum.tokens, scaled), (optimum.loss, decimal))
            cells = [cell(value if optimum.status == "ok" else None, write) for value, write in values]
            rows.append(
                [
                    f"{method}, {power(optimum.flops)} FLOPs",
                    str(optimum.points),
                    *cells,
                    optimum.status + NEAR_EDGE * optimum.near_edge,
                ]
            )
            data.append(
                {"method": method, "flops": optimum.flops, "points": optimum.points, "status": optimum.status,
                 "near_edge": optimum.near_edge}
                | interval_columns(optimum.params, "params") | interval_columns(optimum.tokens, "tokens")
                | interval_columns(optimum.loss, "loss")
            )  # fmt: skip
    caption = (
        "Minimum of the parabola through a budget’s runs, with 95 % bootstrap intervals over those runs and not over "
        "documents; params: stored parameters, in whose log these parabolas are (those of the verdict are in that of "
        "forward FLOPs, and their minima differ a little). “X or more”, “X or less”: the interval goes beyond the "
        "sizes "
        "that were run, where a parabola knows nothing; its loss is then that of the best of those sizes. A minimum "
        "outside the "
        "sizes that were run (edge), below what any size reached by more than noise (poor fit), or of a parabola that "
        "opens downwards (concave), gives no optimum. Near the edge: no farther than one size from the smallest or "
        "largest that was run, so that one side of it is hardly known."
    )
    return Table("optima", caption, ["", "runs", "params", "tokens", "loss", "status"], rows, pd.DataFrame(data))


def seeds_table(results: Results) -> Table:
    """The best shapes run with several seeds, against dense's."""
    rows, data = [], []
    for budget in results.budgets:
        for method in results.methods:
            best = results.best(method, budget)
            if best.empty:
                continue
            losses = best["loss"].to_numpy(dtype=float)
            value = None if method == REFERENCE else best_difference(results, method, REFERENCE, budget)
            detectable = value.detectable if value else None
            spread = float(losses.std(ddof=1)) if len(losses) > 1 else None
            every = value.every if value else None
            shape = f"{best['n_layers'].iloc[0]} × {best['d_model'].iloc[0]}"
            where = edge(results, method, budget)
            rows.append(
                [
                    f"{method}, {power(budget)} FLOPs", shape + where, str(len(losses)),
                    decimal(float(losses.mean())), decimal(spread), difference_cell(value), difference_cell(every),
                    decimal(detectable),
                ]
            )  # fmt: skip
            data.append(
                {"method": method, "budget": budget, "shape": shape, "seeds": len(losses), "loss": losses.mean(),
                 "sd": spread, "detectable": detectable, "edge": where.removeprefix(", ")}
                | interval_columns(value, "minus_dense") | interval_columns(every, "every_seed")
            )  # fmt: skip
    caption = (
        "The best shape of each method and budget (layers × width), with several seeds, minus dense’s best shape. "
        "Shapes were chosen on seed 0, and the best of several is partly lucky: the difference is that of the other "
        "seeds, and the one with seed 0 stands beside it (but seed 1 helped to settle learning rates). Intervals are "
        "over "
        "seeds, whose spread is taken to be the same for all best shapes of the budget, and over held-out documents. "
        "Detectable: the true difference that would "
        "be found with 80 % power. At the edge: the smallest or largest that was run, so that the loss bounds what a "
        "better size would reach; near the edge: next to it."
    )
    columns = [
        "", "shape", "seeds", "loss", "sd over seeds", "minus dense, fresh seeds (95 %)", "all seeds", "detectable",
    ]  # fmt: skip
    return Table("seeds", caption, columns, rows, pd.DataFrame(data))
