"""The figures of the Mixture-of-Depths paper, made again from records, and those that it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.charts import learning_curves
from bench.report.figures import DENSE, MUTED, Drawing, canvas, finish, method_colours, slug, styled
from bench.report.formats import percent, power, scaled
from bench.report.isoflop.claims import controlled
from bench.report.isoflop.curves import Comparison, Curve, Size, curves, frontier
from bench.report.isoflop.results import REFERENCE, Results

_SIZES: dict[Size, str] = {
    "params_total": "parameters stored",
    "params_active": "parameters a token meets",
    "forward_flops": "forward FLOPs a token",
}
_MARKERS = ("o", "s", "^", "D", "v", "P")


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
                "A dot a run. Circles: minima inside the sizes that were run, with their 95 % interval.",
            )
        )
    return found


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    sizes = np.linspace(curve.budget.log_params.min(), curve.budget.log_params.max(), 80)
    z = sizes - curve.budget.centre
    axes.plot(np.exp(sizes), np.polynomial.polynomial.polyval(z, curve.coefficients), color=colour, linewidth=1)
    if curve.inside:
        at, loss = curve.optimum
        if len(at) > 1:
            low, high = np.nanpercentile(loss[1:], [2.5, 97.5])
            axes.plot([np.exp(at[0])] * 2, [low, high], color=colour, linewidth=2)
        axes.plot(np.exp(at[0]), loss[0], "o", color=colour, markersize=6, markeredgecolor=MUTED, markeredgewidth=0.5)


@styled
def normalised_figure(results: Results) -> Drawing | None:
    """Loss over dense's best at that budget, against forward FLOPs over those of dense's best."""
    colours, fitted = method_colours(results.methods), curves(results, "forward_flops")
    figure, axes = canvas(5.2, 3.4)
    drawn = False
    for marker, budget in zip(_MARKERS, results.budgets, strict=False):
        dense = fitted.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            continue
        at, loss = (float(each[0]) for each in dense.optimum)
        for method in results.methods:
            own = results.cell(method, budget).groupby("forward_flops")["loss"].mean()
            x, y = own.index.to_numpy(dtype=float) / np.exp(at), own.to_numpy() / loss
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
    axes.set_ylabel("loss over dense’s best")
    axes.legend(ncols=2)
    return finish(
        figure, "normalised", "Normalised loss against normalised FLOPs",
        "Held-out loss over dense's best at that budget, against forward FLOPs a token over those of dense's optimum.",
        "Below 1 on the vertical axis a run is better than dense’s best of equal training FLOPs; left of 1 it is "
        "cheaper to run.",
    )  # fmt: skip


@styled
def difference_figure(results: Results, compared: Sequence[Comparison], contract: str, title: str) -> Drawing | None:
    """Loss minus dense's over budgets, a line a method, with intervals."""
    colours = method_colours(results.methods)
    figure, axes = canvas()
    drawn = False
    methods = [method for method in results.methods if method != REFERENCE]
    for place, method in enumerate(methods):
        own = [c for c in compared if c.method == method and c.contract == contract and c.value is not None]
        x = np.array([c.budget for c in own]) * (1 + 0.04 * (place - (len(methods) - 1) / 2))
        y = [c.value.value for c in own if c.value]
        if not own:
            continue
        bounds = [(c.value.low, c.value.high) for c in own if c.value]
        error = [
            [value - low if low is not None else 0.0 for value, (low, _) in zip(y, bounds, strict=True)],
            [high - value if high is not None else 0.0 for value, (_, high) in zip(y, bounds, strict=True)],
        ]
        axes.errorbar(
            x, y, yerr=np.abs(error), color=colours[method], marker="o", markersize=4, capsize=2, label=method
        )
        drawn = True
    if not drawn:
        return None
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(results.budgets, [power(budget) for budget in results.budgets])
    axes.minorticks_off()
    axes.set_xlabel("training FLOPs of dense’s run")
    axes.set_ylabel("loss minus dense, nats a token")
    axes.legend()
    return finish(
        figure, f"difference_{contract}", title, f"Held-out loss minus dense's over training budgets: {title.lower()}.",
        "Below 0 the method is better. Bars: 95 % bootstrap intervals.",
    )  # fmt: skip


@styled
def wall_clock_figure(results: Results) -> Drawing | None:
    """Loss of each method's optimum against the seconds its training takes on this machine."""
    colours, lines = method_colours(results.methods), frontier(results)
    if not lines:
        return None
    figure, axes = canvas()
    for method, (seconds, loss) in lines.items():
        axes.plot(seconds, loss, marker="o", markersize=4, color=colours[method], label=method)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("seconds of training, one run at a time")
    axes.set_ylabel("loss at the optimum, nats a token")
    axes.legend()
    return finish(
        figure, "wall_clock", "Best loss against seconds", "Loss of each method's optimum against training seconds.",
        "Seconds: tokens times the step time of that size, timed alone and in turn, divided by the tokens of a step.",
    )  # fmt: skip


@styled
def speed_figure(results: Results) -> Drawing | None:
    """FLOPs of a step and steps a second of the best shapes at the largest budget, over dense's best."""
    budget = results.budgets[-1]
    rows = []
    for method in results.methods:
        best = results.best(method, budget)
        timed = next(
            (
                t
                for t in results.timings(method)
                if (t.n_layers, t.d_model) == (best["n_layers"].iloc[0], best["d_model"].iloc[0])
            ),
            None,
        )
        if timed is not None:
            rows.append(
                (method, f"{timed.n_layers} × {timed.d_model}", timed.step_flops, 1 / timed.step_seconds.median)
            )
    if not rows or rows[0][0] != REFERENCE:
        return None
    colours = method_colours(results.methods)
    figure, axes = canvas(height=1.0 + 0.45 * len(rows))
    for row, (method, _, flops, rate) in enumerate(rows):
        axes.barh(row - 0.18, flops / rows[0][2], height=0.32, color=colours[method], alpha=0.45)
        axes.barh(row + 0.18, rate / rows[0][3], height=0.32, color=colours[method])
        axes.text(flops / rows[0][2], row - 0.18, f" {scaled(flops)}FLOPs a step", va="center", fontsize=7.5)
        axes.text(rate / rows[0][3], row + 0.18, f" {rate:.3g} steps/s", va="center", fontsize=7.5)
    widest = max(max(flops / rows[0][2], rate / rows[0][3]) for _, _, flops, rate in rows)
    axes.set_xlim(0, 1.45 * widest)
    axes.axvline(1, color=DENSE, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{method}\n{shape}" for method, shape, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("over dense’s best")
    return finish(
        figure, "step_speed", "FLOPs of a step and steps a second",
        "FLOPs of a training step and steps a second of each method's best shape, over dense's.",
        f"Best shapes (layers × width) at {power(budget)} FLOPs. Pale: FLOPs of a step. Full: steps a second.",
    )  # fmt: skip


@styled
def capacity_figure(results: Results) -> Drawing | None:
    """Loss over capacity at one budget and shape: learned router, random router, each seed, and dense."""
    where = controlled(results)
    if where is None:
        return None
    budget, query = where
    runs = results.runs.query(f"{query} and stage != 'rates'")
    depth = runs[runs["method"].isin(["mod", "mod_random"]) & (runs["causal"] != "bce")]
    figure, axes = canvas()
    colours = method_colours(["mod", "mod_random"])
    for router, method, label in (("learned", "mod", "learned router"), ("gaussian", "mod_random", "random router")):
        own = depth[depth["router"] == router]
        if own.empty:
            continue
        axes.scatter(own["capacity"], own["loss"], s=10, color=colours[method], alpha=0.6, linewidths=0)
        means = own.groupby("capacity")["loss"].mean()
        axes.plot(means.index, means.to_numpy(), color=colours[method], marker="o", markersize=4, label=label)
    dense = runs[runs["method"] == REFERENCE]["loss"]
    if len(dense):
        axes.axhline(float(dense.mean()), color=DENSE, linewidth=1.2, label="dense, same shape")
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("capacity")
    axes.set_ylabel("held-out loss, nats a token")
    axes.legend()
    shape = f"{runs['n_layers'].iloc[0]} × {runs['d_model'].iloc[0]}"
    return finish(
        figure, "capacity", f"Capacity, at {power(budget)} FLOPs",
        "Held-out loss against the capacity of routed blocks, with a learned and a random router.",
        f"Shape {shape} (layers × width), equal training FLOPs; a dot a seed. A larger capacity sees fewer tokens.",
    )  # fmt: skip


@styled
def causality_figure(results: Results) -> Drawing | None:
    """Loss with the causal router over loss with top-k, of every depth-routed run."""
    runs = results.runs.dropna(subset=["loss_noncausal"])
    runs = runs[runs["stage"] != "rates"]
    if runs.empty:
        return None
    methods = list(dict.fromkeys(runs["method"]))
    colours = method_colours(methods)
    figure, axes = canvas()
    for method in methods:
        own = runs[runs["method"] == method]
        axes.scatter(own["accuracy"], 100 * (own["loss"] / own["loss_noncausal"] - 1), s=12, color=colours[method],
                     alpha=0.7, linewidths=0, label=method)  # fmt: skip
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("agreement of the causal router with top-k")
    axes.set_ylabel("loss over top-k’s, %")
    axes.legend()
    return finish(
        figure, "causality", "Causal router against top-k",
        "Held-out loss with the causal router over that with top-k, against their agreement, for every run.",
        "Top-k looks at the whole text; a causal router does not. A dot a run.",
    )  # fmt: skip


@styled
def rate_figure(results: Results) -> Drawing | None:
    """The learning-rate sweep: loss over the multiple of the rule, a line a method and size."""
    colours = method_colours(results.methods)
    figure, axes = canvas()
    drawn = False
    for name, rule in results.study.learning_rates.items():
        tried = pd.DataFrame([each.model_dump() for each in rule.tried]).dropna() if rule.tried else pd.DataFrame()
        if tried.empty:
            continue
        label = results.labels.get(name, name)
        for style, ((_, width), own) in zip(("-", "--", ":"), tried.groupby(["n_layers", "d_model"]), strict=False):
            axes.plot(own["lr_at_128"], own["val_loss_nats"], color=colours.get(label, MUTED), linestyle=style,
                      marker="o", markersize=3, linewidth=1, label=f"{label}, width {width}")  # fmt: skip
        axes.axvline(rule.lr_at_128, color=colours.get(label, MUTED), linewidth=0.8, linestyle=(0, (1, 2)))
        drawn = True
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("learning rate at width 128")
    axes.set_ylabel("held-out loss, nats a token")
    axes.legend(fontsize=6.5, ncols=2)
    return finish(
        figure, "learning_rates", "The learning-rate sweep",
        "Held-out loss against the learning rate at width 128, for every method and two sizes, at the smallest budget.",
        "Dotted: what was settled on, from a parabola through both sizes of a method.",
    )  # fmt: skip


def matched_curves(results: Results) -> list[Drawing]:
    """Learning curves of the best shapes at the largest budget, against FLOPs, tokens and seconds."""
    return learning_curves(results.group(results.budgets[-1]))
