"""The same runs compared under every contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.formats import power
from bench.isoflop.analysis.contracts import CONTRACTS, Comparison
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.wall_clock import frontiers, on_threads
from bench.isoflop.pages.cells import difference_cell, interval_columns
from bench.isoflop.pages.section import Part, there
from bench.isoflop.pages.sizes import size_figures
from bench.report.figures import DENSE, Drawing, canvas, error_bars, finish, method_colours, styled
from bench.report.load import CONTRACTS as WORDS
from bench.report.tables import Table


def contracts_part(results: Results, compared: Sequence[Comparison]) -> Part:
    """Differences from dense under every contract."""
    notes = [
        "Equal training FLOPs: each method at its own best size. Equal FLOPs per forward pass, active or total "
        "parameters: at the size that is best for dense, which favours dense. Equal time: the loss of the method’s "
        "FLOP-optimal sizes in "
        "the seconds that dense’s FLOP-optimal run trains for, between those of two budgets, by step times taken alone"
        f"{on_threads(results)}; a size that is best for its time, not for its FLOPs, may do better.",
        "Intervals: over the scatter of runs about their curves and over held-out documents, in equal time over the "
        "sizes that are optimal and the noise of timing, too. “X or more”, “X or less”: drawn seconds go beyond those "
        "of "
        "the method’s own runs. They do not know of the learning rate.",
    ]
    differences = [difference_figure(results, compared, name, f"Loss {WORDS[name]}") for name in CONTRACTS]
    met = size_figures(results, "params_active")[-1:]
    drawings = there(*differences, *met, wall_clock_figure(results))
    return Part("contracts", "The same runs under other contracts", notes, drawings,
                [contracts_table(results, compared)])  # fmt: skip


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
        if not own:
            continue
        values = [c.value for c in own if c.value]
        error_bars(axes, x, values, colours[method], linestyle="-", label=method)
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
        "Below 0 the method is better. Bars: 95 % intervals; a side without a bar is open.",
    )  # fmt: skip


@styled
def wall_clock_figure(results: Results) -> Drawing | None:
    """Loss of each method's optimum against the seconds its training takes on this machine."""
    colours, lines = method_colours(results.methods), frontiers(results)
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
        figure, "wall_clock", "Loss of FLOP-optimal sizes against seconds",
        "Loss of each method's optimum against training seconds.",
        "Sizes that are best for their FLOPs, which need not be best for their time. Seconds: tokens times the step "
        f"time of that size, timed alone and in turn{on_threads(results)}, divided by the tokens of a step.",
    )  # fmt: skip


def contracts_table(results: Results, compared: Sequence[Comparison]) -> Table:
    """A row a method and budget, a column a contract."""
    cells = {(c.method, c.budget, c.contract): c for c in compared}
    rows = []
    for method in results.methods:
        if method == REFERENCE:
            continue
        for budget in results.budgets:
            own = [cells[method, budget, contract] for contract in CONTRACTS]
            rows.append(
                [f"{method}, {power(budget)} FLOPs", *(difference_cell(c.value) if c.value else c.why for c in own)]
            )
    data = pd.DataFrame(
        [{"method": c.method, "budget": c.budget, "contract": c.contract, "why_not": c.why}
         | interval_columns(c.value, "minus_dense") for c in compared]
    )  # fmt: skip
    caption = "Held-out loss minus dense’s, nats a token, with 95 % intervals; below 0 the method is better."
    return Table("contracts", caption, ["", *(WORDS[name] for name in CONTRACTS)], rows, data)
