"""Iso-loss models (dense's best loss at equal training FLOPs), learning curves and step times."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bench.formats import power, scaled, times
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.iso_loss import IsoLoss
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.wall_clock import on_threads
from bench.isoflop.pages.section import NAMED, counted, interval_columns, named, shape_of, there
from bench.report.charts import CURVES_NOTE, learning_curves
from bench.report.load import Group, Method, RunFiles
from bench.web.figures import DENSE, Drawing, canvas, finish, method_colours, styled
from bench.web.page import Part
from bench.web.tables import Table


def speed_part(results: Results, matched: list[IsoLoss]) -> Part:
    """Iso-loss models, learning curves and step times."""
    curves = [*_curves(results, results.group(results.budgets[-1])), *iso_loss_curves(results)]
    seconds = "Seconds are the number of steps times the step time of that shape, timed alone. "
    notes = [f"{seconds}{CURVES_NOTE}"] if curves else []
    drawings = there(speed_figure(results), *curves)
    tables = [iso_loss_table(matched), timings_table(results)]
    ratios = counted((each.forward_flops for each in matched), 1.0)
    folded = f"Forward FLOPs for Dense’s best loss, over Dense’s: {ratios}. Step times and learning curves"
    return Part("speed", "Iso-loss and speed", notes, drawings, tables, folded=folded)


@styled
def speed_figure(results: Results) -> Drawing | None:
    """FLOPs per step and steps per second of the best shapes at the largest budget, over dense's best."""
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
            rows.append((method, f"{timed.n_layers}×{timed.d_model}", timed.step_flops, 1 / timed.step_seconds.median))
    if not rows or rows[0][0] != REFERENCE:
        return None
    colours = method_colours(results.methods)
    figure, axes = canvas(height=1.0 + 0.5 * len(rows))
    for row, (method, _, flops, rate) in enumerate(rows):
        axes.barh(row - 0.18, flops / rows[0][2], height=0.32, color=colours[method], alpha=0.45)
        axes.barh(row + 0.18, rate / rows[0][3], height=0.32, color=colours[method])
        axes.text(flops / rows[0][2], row - 0.18, f" {scaled(flops)}FLOPs/step", va="center")
        axes.text(rate / rows[0][3], row + 0.18, f" {rate:.3g} steps/s", va="center")
    widest = max(max(flops / rows[0][2], rate / rows[0][3]) for _, _, flops, rate in rows)
    axes.set_xlim(0, 1.9 * widest)
    axes.axvline(1, color=DENSE, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{title(method)}\n{shape}" for method, shape, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("over Dense’s best")
    return finish(
        figure, "step_speed", "FLOPs per step and steps per second",
        "FLOPs of a training step and steps per second of each method's best shape, over Dense's.",
        f"Best shapes at {power(budget)} FLOPs. Pale: FLOPs per step. Full: steps per second.",
    )  # fmt: skip


def _curves(results: Results, group: Group) -> list[Drawing]:
    """Against seconds: steps times the step of that shape as timed alone, because runs side by side slow each other.

    Runs of shapes that were not timed are not in that one figure.
    """
    names = {title(method): method for method in results.methods}
    alone = [Method(m.label, [run for each in m.runs if (run := _timed_alone(results, names[m.label], each))])
             for m in group.methods]  # fmt: skip
    timed = [method for method in alone if method.runs]
    untimed = [m.label for m in group.methods if m.label not in {method.label for method in timed}]
    caption = f"Steps not timed: {', '.join(untimed)}." if untimed else ""
    by_seconds = learning_curves(replace(group, methods=timed)) if timed else []
    return [
        *(drawing for drawing in learning_curves(group) if not drawing.name.endswith("seconds")),
        *(replace(drawing, caption=caption) for drawing in by_seconds if drawing.name.endswith("seconds")),
    ]


def _timed_alone(results: Results, method: str, run: RunFiles) -> RunFiles | None:
    shape = (run.record.model.n_layers, run.record.model.d_model)
    step = next((t.step_seconds.median for t in results.timings(method) if (t.n_layers, t.d_model) == shape), None)
    if step is None or run.steps is None:
        return None
    return replace(run, steps=run.steps.assign(seconds=run.steps["step"] * step))


def iso_loss_curves(results: Results) -> list[Drawing]:
    """Learning curves of dense's best shape and of each method's cheapest shape as good, at the largest budget."""
    budget = results.budgets[-1]
    best = results.best(REFERENCE, budget)
    if best.empty:
        return []
    methods = [Method(title(REFERENCE), [results.files[run] for run in best["id"]])]
    shapes = [f"{title(REFERENCE)} {shape_of(best)}"]
    for name in (name for name in results.methods if name != REFERENCE):
        own = results.cell(name, budget)
        losses = own.groupby("forward_flops")["loss"].mean()
        as_good = losses.index[losses <= best["loss"].mean()]
        if as_good.empty:
            continue
        runs = own[own["forward_flops"] == as_good.min()].sort_values("seed")
        methods.append(Method(title(name), [results.files[run] for run in runs["id"]]))
        shapes.append(f"{title(name)} {shape_of(runs)}, {times(as_good.min() / best['forward_flops'].iloc[0])}")
    if len(methods) == 1:
        return []
    caption = (
        f"At {power(budget)} FLOPs, each method’s cheapest shape that reaches Dense’s best loss, by forward FLOPs: "
        f"{'; '.join(shapes)} Dense’s. Most shapes have one seed, so some of them are lucky."
    )
    drawings = _curves(results, Group(results.study.name, methods))
    return [
        replace(
            drawing, name=f"iso_loss_{drawing.name}", title=f"Iso-loss: {drawing.title[0].lower()}{drawing.title[1:]}",
            caption=caption if drawing.name.endswith("flops") else drawing.caption,
        )
        for drawing in drawings if not drawing.name.endswith("tokens")
    ]  # fmt: skip


def iso_loss_table(matched: list[IsoLoss]) -> Table:
    """A row per method and budget, over dense's best."""
    rows = [
        [
            named(p.method, p.budget),
            in_words(p.forward_flops, times) if p.forward_flops else p.why,
            in_words(p.step_time, times), in_words(p.optimum_flops, times),
        ]
        for p in matched
    ]  # fmt: skip
    data = pd.DataFrame(
        [{"method": p.method, "budget": p.budget} | interval_columns(p.forward_flops, "forward_flops")
         | interval_columns(p.step_time, "step_time") | interval_columns(p.optimum_flops, "optimum_flops")
         for p in matched]
    )  # fmt: skip
    caption = (
        "The smallest model with Dense’s best loss at equal training FLOPs, over Dense’s best (95 % CI): forward FLOPs "
        "and step time. Last: forward FLOPs of the method’s own optimum over Dense’s."
    )
    columns = [NAMED, "forward FLOPs, iso-loss", "step time, iso-loss", "forward FLOPs, own optimum"]
    return Table("iso_loss", caption, columns, rows, data)


def timings_table(results: Results) -> Table:
    """Every method and shape, for the CSV alone."""
    timings = pd.json_normalize(
        [timed.model_dump() | {"method": results.method_of(timed.method)} for timed in results.study.timings]
    )
    alone = f"a training step of every method and shape, timed alone{on_threads(results)}"
    return Table("step_times", alone, [], [], timings)
