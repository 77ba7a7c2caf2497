"""Ablations: capacities, a random router, other causal routers, and the learning-rate sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from bench.formats import DASH, count, decimal, percent, power, signed, significant
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.routers import METHOD, ablated
from bench.isoflop.pages.section import UNIT, shape_of, there
from bench.records.isoflop import LearningRate, Tried
from bench.web.figures import DENSE, MUTED, Drawing, canvas, finish, method_colours, styled
from bench.web.page import Part
from bench.web.tables import Table


def ablations_part(results: Results) -> Part:
    """Capacity, causality and learning rates."""
    drawings = there(capacity_figure(results), causality_figure(results), rate_figure(results))
    runs = results.runs[results.runs["stage"] == "controls"]
    tried = sum(len(rule.tried) for rule in results.study.learning_rates.values())
    folded = f"Capacities, random and causal routers: {len(runs)} runs. Learning rates: {tried} runs"
    tables = [ablations_table(results), rates_table(results)]
    return Part("ablations", "Ablations", [], drawings, tables, folded=folded)


@styled
def capacity_figure(results: Results) -> Drawing | None:
    """Loss over capacity at one budget and shape: learned router, random router, each seed, and dense."""
    where = ablated(results)
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
        axes.axhline(float(dense.mean()), color=DENSE, linewidth=1.2, label="Dense, same shape")
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("capacity")
    axes.set_ylabel(f"validation loss, {UNIT}")
    axes.legend()
    shape = shape_of(runs)
    return finish(
        figure, "capacity", f"Capacity, at {power(budget)} FLOPs",
        "Validation loss against the capacity of routed blocks, with a learned and a random router.",
        f"{shape}, equal training FLOPs; a dot is a seed. Seed 0 chose this shape for {title(METHOD)}, which flatters "
        "it a little.",
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
                     alpha=0.7, linewidths=0, label=title(method))  # fmt: skip
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("agreement of the causal router with top-k")
    axes.set_ylabel("loss over that with top-k, %")
    axes.legend()
    return finish(
        figure, "causality", "Causal router against top-k",
        "Validation loss with the causal router over that with top-k, against their agreement.",
        "A dot is a run; the sweep’s runs are not shown.",
    )  # fmt: skip


@styled
def rate_figure(results: Results) -> Drawing | None:
    """The learning-rate sweep: loss over the multiple of the rule, a line per method and size."""
    colours = method_colours(results.methods)
    figure, axes = canvas(height=4.4)
    drawn = False
    for name, rule in results.study.learning_rates.items():
        tried = _runs(rule.tried)
        if tried.empty:
            continue
        method = results.method_of(name)
        for style, ((_, width), own) in zip(("-", "--", ":"), tried.groupby(["n_layers", "d_model"]), strict=False):
            colour, means = colours.get(method, MUTED), own.groupby("lr_at_128")["val_loss_nats"].mean()
            axes.scatter(own["lr_at_128"], own["val_loss_nats"], s=8, color=colour, linewidths=0)
            axes.plot(means.index, means.to_numpy(), color=colour, linestyle=style, linewidth=1,
                      label=f"{title(method)}, width {width}")  # fmt: skip
        axes.axvline(rule.lr_at_128, color=colours.get(method, MUTED), linewidth=0.8, linestyle=(0, (1, 2)))
        drawn = True
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("learning rate at width 128")
    axes.set_ylabel(f"validation loss, {UNIT}")
    figure.legend(loc="outside lower center", ncols=2, columnspacing=0.8)
    return finish(
        figure, "learning_rates", "The learning-rate sweep",
        "Validation loss against the learning rate at width 128, for every method and two sizes.",
        f"Smallest budget; dots are runs, lines means over seeds. {_chosen(results)}",
    )  # fmt: skip


_HOW = {
    "fitted": "minimum of a parabola in the log of the rate, with one level per size",
    "tried": "best rate tried; the parabola opens downwards",
    "edge": "lowest or highest rate that trained well; the parabola’s minimum is outside",
    "given": "the configured rate; too few were tried or trained well",
}


def _chosen(results: Results) -> str:
    """What the dotted lines are, method by method."""
    rules = results.study.learning_rates
    named = {
        status: [title(results.method_of(name)) for name, rule in rules.items() if rule.status == status]
        for status in _HOW
    }
    chosen = "; ".join(f"{', '.join(methods)}: {_HOW[status]}" for status, methods in named.items() if methods)
    return f"Dotted: the chosen rate ({chosen})."


def ablations_table(results: Results) -> Table:
    """A row per method and capacity."""
    ablations = results.runs[results.runs["stage"] == "controls"]
    rows = []
    if not ablations.empty:
        for (method, capacity), own in ablations.groupby(["method", "capacity"], dropna=False, sort=False):
            spread = float(own["loss"].std(ddof=1)) if len(own) > 1 else None
            where = f", capacity {percent(capacity)}" if capacity is not None and np.isfinite(capacity) else ""
            accuracy, learned = own["accuracy"].mean(), (own["router"] == "learned").all()
            rows.append(
                [
                    f"{title(method)}{where}", shape_of(own), str(len(own)),
                    decimal(float(own["loss"].mean())), decimal(spread),
                    percent(float(accuracy)) if np.isfinite(accuracy) and learned else DASH,
                    percent(float(own["processed"].mean())) if own["processed"].notna().any() else DASH,
                ]
            )  # fmt: skip
    caption = "Ablations use the best shape and learning rate of their method; with their own they may do better."
    columns = ["", "shape", "seeds", f"loss, {UNIT}", "sd over seeds", "agrees with top-k", "tokens processed"]
    return Table("ablations", caption, columns, rows, ablations)


def rates_table(results: Results) -> Table:
    """The learning rate of each method, how it was chosen, and the best rate of each size of the sweep."""
    rules = results.study.learning_rates
    rows = [
        [
            title(results.method_of(name)), significant(rule.lr_at_128), rule.status,
            "; ".join(_best_by_size(rule)) or DASH, "; ".join(_regret(results, name, rule)) or DASH,
            count(len(rule.tried)),
        ]
        for name, rule in rules.items()
    ]  # fmt: skip
    data = pd.DataFrame(
        [{"method": results.method_of(name), "settled": rule.lr_at_128, "status": rule.status} | each.model_dump()
         for name, rule in rules.items() for each in rule.tried]
    )  # fmt: skip
    caption = (
        "Learning rates, chosen at the smallest budget and scaled by sqrt(128 / width). Regret: seed 0’s loss at the "
        "chosen rate minus the lowest tried. Another rate may move losses as much as methods differ."
    )
    columns = ["", "at width 128", "status", "best tried", f"regret, {UNIT}", "runs"]
    return Table("learning_rates", caption, columns, rows, data)


def _runs(tried: list[Tried]) -> pd.DataFrame:
    """A row per finished run of the sweep."""
    columns = ["n_layers", "d_model", "lr_at_128", "seed", "val_loss_nats"]
    return pd.DataFrame([each.model_dump() for each in tried], columns=columns).dropna()


def _regret(results: Results, name: str, rule: LearningRate) -> list[str]:
    """The regret of each size of the sweep that was also run at the chosen rate."""
    found = []
    cell = results.cell(results.method_of(name), min(results.budgets)).query("seed == 0")
    for (layers, width), tried in _runs(rule.steady).query("seed == 0").groupby(["n_layers", "d_model"]):
        own = cell.query(f"n_layers == {layers} and d_model == {width}")
        if len(own):
            found.append(f"{layers}×{width}: {signed(float(own['loss'].iloc[0] - tried['val_loss_nats'].min()))}")
    return found


def _best_by_size(rule: LearningRate) -> list[str]:
    """The best rate of each size of the sweep, and whether it is the lowest or highest that did not diverge."""
    found = []
    runs = _runs(rule.steady)
    for (layers, width), tried in runs.groupby(["n_layers", "d_model"]):
        best = tried.groupby("lr_at_128")["val_loss_nats"].mean().idxmin()
        end = {runs["lr_at_128"].min(): ", the lowest", runs["lr_at_128"].max(): ", the highest"}.get(best, "")
        found.append(f"{layers}×{width}: {significant(best)}{end}")
    return found
