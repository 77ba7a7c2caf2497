"""Models that match dense's best loss, and what a step of each shape takes."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bench.formats import DASH, decimal, duration, power, scaled, times
from bench.isoflop.analysis.iso_loss import Parity
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.wall_clock import on_threads
from bench.isoflop.pages.cells import cell, interval_columns
from bench.isoflop.pages.section import Part, there
from bench.report.charts import CURVES_NOTE, learning_curves
from bench.report.figures import DENSE, Drawing, canvas, finish, method_colours, styled
from bench.report.load import Group, Method, RunFiles
from bench.report.tables import Table


def speed_part(results: Results, matched: list[Parity]) -> Part:
    """Parity, learning curves and step times."""
    return Part(
        "speed", "Parity and speed", [],
        there(speed_figure(results), *best_curves(results), *parity_curves(results)),
        [parity_table(matched), timings_table(results)],
    )  # fmt: skip


@styled
def speed_figure(results: Results) -> Drawing | None:
    """FLOPs of a step and steps a second of the best shapes at the largest budget, over dense's best."""
    budget = results.budgets[-1]
    rows = []
    for method in results.methods:
        best = results.best(method, budget)
        if best.empty:
            continue
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


def best_curves(results: Results) -> list[Drawing]:
    """Learning curves of the best shapes at the largest budget, against FLOPs, tokens and seconds."""
    return _curves(results, results.group(results.budgets[-1]))


def _curves(results: Results, group: Group) -> list[Drawing]:
    """Against seconds: steps times the step of that shape as timed alone, for runs trained at once slow each other.

    Runs of shapes that were not timed are left out of that one figure.
    """
    alone = [Method(m.label, [run for each in m.runs if (run := _timed_alone(results, m.label, each))])
             for m in group.methods]  # fmt: skip
    timed = [method for method in alone if method.runs]
    untimed = [m.label for m in group.methods if m.label not in {method.label for method in timed}]
    caption = (
        "Seconds: steps times the step of that shape timed alone, not the seconds of runs trained side by side. "
        f"{CURVES_NOTE}"
    )
    if untimed:
        caption += f" Left out, for their steps were not timed: {', '.join(untimed)}."
    by_seconds = learning_curves(replace(group, methods=timed)) if timed else []
    return [
        *(drawing for drawing in learning_curves(group) if not drawing.name.endswith("seconds")),
        *(replace(drawing, caption=caption) for drawing in by_seconds if drawing.name.endswith("seconds")),
    ]


def _timed_alone(results: Results, label: str, run: RunFiles) -> RunFiles | None:
    shape = (run.record.model.n_layers, run.record.model.d_model)
    step = next((t.step_seconds.median for t in results.timings(label) if (t.n_layers, t.d_model) == shape), None)
    if step is None or run.steps is None:
        return None
    return replace(run, steps=run.steps.assign(seconds=run.steps["step"] * step))


def parity_curves(results: Results) -> list[Drawing]:
    """Learning curves of dense's best shape and of each method's cheapest that is as good, at the largest budget."""
    budget = results.budgets[-1]
    best = results.best(REFERENCE, budget)
    if best.empty:
        return []
    methods = [Method(REFERENCE, [results.files[run] for run in best["id"]])]
    shapes = [f"{REFERENCE} {_shape(best)}"]
    for name in (name for name in results.methods if name != REFERENCE):
        own = results.cell(name, budget)
        losses = own.groupby("forward_flops")["loss"].mean()
        as_good = losses.index[losses <= best["loss"].mean()]
        if as_good.empty:
            continue
        runs = own[own["forward_flops"] == as_good.min()].sort_values("seed")
        methods.append(Method(name, [results.files[run] for run in runs["id"]]))
        shapes.append(f"{name} {_shape(runs)}, {times(as_good.min() / best['forward_flops'].iloc[0])}")
    if len(methods) == 1:
        return []
    caption = (
        f"At {power(budget)} FLOPs: dense’s best shape and, of each method, the shape with the fewest FLOPs in a "
        f"forward pass whose held-out loss is as good: {'; '.join(shapes)} dense’s. Shapes other than the best were "
        "run once, and the lucky ones are among them. Depth-routed methods train with top-k, so these are not their "
        "causal "
        "losses."
    )
    return [
        replace(drawing, name=f"parity_{drawing.name}", title=f"As good as dense: {drawing.title[0].lower()}"
                f"{drawing.title[1:]}", caption=f"{caption} {drawing.caption}".strip())
        for drawing in _curves(results, Group(results.study.name, methods)) if not drawing.name.endswith("tokens")
    ]  # fmt: skip


def _shape(runs: pd.DataFrame) -> str:
    return f"{runs['n_layers'].iloc[0]} × {runs['d_model'].iloc[0]}"


def parity_table(matched: list[Parity]) -> Table:
    """A row a method and budget, over dense's best."""
    rows = [
        [
            f"{p.method}, {power(p.budget)} FLOPs",
            cell(p.forward_flops, times) if p.forward_flops else p.why,
            cell(p.step_time, times), cell(p.optimum_flops, times),
        ]
        for p in matched
    ]  # fmt: skip
    data = pd.DataFrame(
        [{"method": p.method, "budget": p.budget} | interval_columns(p.forward_flops, "forward_flops")
         | interval_columns(p.step_time, "step_time") | interval_columns(p.optimum_flops, "optimum_flops")
         for p in matched]
    )  # fmt: skip
    caption = (
        "The smallest model of each method that reaches dense’s best loss at the same training FLOPs, over dense’s "
        "best: FLOPs of a forward pass and time of a training step, for equally many tokens. Last: forward FLOPs of "
        "the method’s own optimum over dense’s. Intervals at parity know of held-out documents, too, and those of step "
        "time of the noise of timing. “X or more”, “X or less”: the interval goes beyond the sizes that were run."
    )
    return Table("parity", caption, ["", "FLOPs at parity", "step time at parity", "FLOPs of its optimum"], rows, data)


def timings_table(results: Results) -> Table:
    """A row a method and shape."""
    timings = results.study.timings
    rows = [
        [
            f"{t.method}, {t.n_layers} × {t.d_model}", scaled(t.step_flops), duration(t.step_seconds.median),
            decimal(t.step_flops / t.step_seconds.median / 1e9, 1),
            f"{times(t.over_dense.median)} ({times(t.over_dense.low)} to {times(t.over_dense.high)})"
            if t.over_dense else DASH,
        ]
        for t in timings
    ]  # fmt: skip
    caption = (
        f"A training step of every method and shape, with nothing trained beside it{on_threads(results)}; over dense: "
        "in turn with it."
    )
    columns = ["", "FLOPs", "step", "GFLOP/s", "over dense of the same shape"]
    return Table("step_times", caption, columns, rows, pd.json_normalize([t.model_dump() for t in timings]))
