"""Controls: capacities, a random router, other causal routers, and the learning-rate sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from bench.formats import DASH, count, decimal, percent, power, signed, significant
from bench.isoflop.analysis.claim_routers import METHOD, controlled
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.pages.section import Part, there
from bench.records.isoflop import LearningRate, Tried
from bench.report.figures import DENSE, MUTED, Drawing, canvas, finish, method_colours, styled
from bench.report.tables import Table


def controls_part(results: Results) -> Part:
    """Capacity, causality and learning rates."""
    return Part(
        "controls", "Controls", [],
        there(capacity_figure(results), causality_figure(results), rate_figure(results)),
        [controls_table(results), rates_table(results)],
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
        f"Shape {shape} (layers × width), equal training FLOPs; a dot a seed. A larger capacity sees fewer tokens. "
        f"The shape is {METHOD}’s best on seed 0, which is among the dots and flatters it a little.",
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
        "Held-out loss with the causal router over that with top-k, against their agreement.",
        "Top-k looks at the whole text; a causal router does not. A dot a run, but for those of the sweep.",
    )  # fmt: skip


@styled
def rate_figure(results: Results) -> Drawing | None:
    """The learning-rate sweep: loss over the multiple of the rule, a line a method and size."""
    colours = method_colours(results.methods)
    figure, axes = canvas(height=3.9)
    drawn = False
    for name, rule in results.study.learning_rates.items():
        tried = _runs(rule.tried)
        if tried.empty:
            continue
        label = results.labels.get(name, name)
        for style, ((_, width), own) in zip(("-", "--", ":"), tried.groupby(["n_layers", "d_model"]), strict=False):
            colour, means = colours.get(label, MUTED), own.groupby("lr_at_128")["val_loss_nats"].mean()
            axes.scatter(own["lr_at_128"], own["val_loss_nats"], s=8, color=colour, linewidths=0)
            axes.plot(means.index, means.to_numpy(), color=colour, linestyle=style, linewidth=1,
                      label=f"{label}, width {width}")  # fmt: skip
        axes.axvline(rule.lr_at_128, color=colours.get(label, MUTED), linewidth=0.8, linestyle=(0, (1, 2)))
        drawn = True
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("learning rate at width 128")
    axes.set_ylabel("held-out loss, nats a token")
    figure.legend(loc="outside lower center", fontsize=6.5, ncols=2)
    return finish(
        figure, "learning_rates", "The learning-rate sweep",
        "Held-out loss against the learning rate at width 128, for every method and two sizes, at the smallest budget.",
        f"A dot a run, lines their means over seeds. {_settled(results)}",
    )  # fmt: skip


_HOW = {
    "fitted": "the minimum of a parabola through both sizes",
    "tried": "the best rate tried, for such a parabola has no minimum",
    "edge": "the lowest or highest rate that trained well, for the minimum of such a parabola is not between those",
    "given": "the rate that was given, for too few were tried or trained well",
}


def _settled(results: Results) -> str:
    """What the dotted lines are, method by method."""
    rules = results.study.learning_rates
    named = {
        status: [results.labels.get(name, name) for name, rule in rules.items() if rule.status == status]
        for status in _HOW
    }
    told = "; ".join(f"{', '.join(methods)}: {_HOW[status]}" for status, methods in named.items() if methods)
    return f"Dotted: what was settled on. {told}."


def controls_table(results: Results) -> Table:
    """A row a method and capacity."""
    controls = results.runs[results.runs["stage"] == "controls"]
    rows = []
    if not controls.empty:
        for (method, capacity), own in controls.groupby(["method", "capacity"], dropna=False, sort=False):
            spread = float(own["loss"].std(ddof=1)) if len(own) > 1 else None
            where = f", capacity {percent(capacity)}" if capacity is not None and np.isfinite(capacity) else ""
            accuracy, learned = own["accuracy"].mean(), (own["router"] == "learned").all()
            rows.append(
                [
                    f"{method}{where}", f"{own['n_layers'].iloc[0]} × {own['d_model'].iloc[0]}", str(len(own)),
                    decimal(float(own["loss"].mean())), decimal(spread),
                    percent(float(accuracy)) if np.isfinite(accuracy) and learned else DASH,
                    percent(float(own["processed"].mean())) if own["processed"].notna().any() else DASH,
                ]
            )  # fmt: skip
    caption = (
        "Controls at one budget, at the best shape and the learning rate of the method that they are controls of. "
        "Neither was sought for the controls (other capacities, other routers, integrated MoDE), which may do better "
        "at theirs."
    )
    columns = ["", "shape", "seeds", "loss", "sd over seeds", "agrees with top-k", "tokens processed"]
    return Table("controls", caption, columns, rows, controls)


def rates_table(results: Results) -> Table:
    """The learning rate that each method was given, how it was settled, and what each size of the sweep says alone."""
    rules = results.study.learning_rates
    rows = [
        [
            results.labels.get(name, name), significant(rule.lr_at_128), rule.status,
            "; ".join(_best_by_size(rule)) or DASH, "; ".join(_given_up(results, name, rule)) or DASH,
            count(len(rule.tried)),
        ]
        for name, rule in rules.items()
    ]  # fmt: skip
    data = pd.DataFrame(
        [{"method": name, "settled": rule.lr_at_128, "status": rule.status} | each.model_dump()
         for name, rule in rules.items() for each in rule.tried]
    )  # fmt: skip
    caption = (
        "Learning rates: settled on for each method at the smallest budget, then scaled by sqrt(128 / width) for every "
        "size. Fitted: the minimum of a parabola in log rate, the same for both sizes but for its level, that a single "
        "run far off does not move much; edge: the lowest or highest rate that trained well (below the lowest at "
        "which a run diverged, and below a cliff of 0.3 nats); tried: the best, for the parabola opens downwards. Best "
        "tried: of means over seeds. Given up: loss of seed 0 at the rate settled on minus its lowest tried at that "
        "size, nats a token; the lowest of several is partly luck. No interval of this report knows of the learning "
        "rate: another rule may move a method’s losses by as much as methods differ."
    )
    columns = ["", "at width 128", "", "best tried at each size", "given up", "runs"]
    return Table("learning_rates", caption, columns, rows, data)


def _runs(tried: list[Tried]) -> pd.DataFrame:
    """A row a run of the sweep that ended well."""
    columns = ["n_layers", "d_model", "lr_at_128", "seed", "val_loss_nats"]
    return pd.DataFrame([each.model_dump() for each in tried], columns=columns).dropna()


def _given_up(results: Results, name: str, rule: LearningRate) -> list[str]:
    """Of each size of the sweep that was run at the rate settled on, too."""
    told = []
    cell = results.cell(results.labels.get(name, name), min(results.budgets)).query("seed == 0")
    for (layers, width), tried in _runs(rule.steady).query("seed == 0").groupby(["n_layers", "d_model"]):
        own = cell.query(f"n_layers == {layers} and d_model == {width}")
        if len(own):
            told.append(f"{layers} × {width}: {signed(float(own['loss'].iloc[0] - tried['val_loss_nats'].min()))}")
    return told


def _best_by_size(rule: LearningRate) -> list[str]:
    """Of each size of the sweep, and whether it is an end of the rates that were tried without a divergence."""
    told = []
    runs = _runs(rule.steady)
    for (layers, width), tried in runs.groupby(["n_layers", "d_model"]):
        best = tried.groupby("lr_at_128")["val_loss_nats"].mean().idxmin()
        end = {runs["lr_at_128"].min(): ", the lowest", runs["lr_at_128"].max(): ", the highest"}.get(best, "")
        told.append(f"{layers} × {width}: {significant(best)}{end}")
    return told
