"""The same runs compared under every contract."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.isoflop.analysis.contracts import CONTRACTS, Comparison
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.wall_clock import frontiers, on_threads
from bench.isoflop.pages.section import (
    NAMED,
    UNIT,
    Line,
    difference_cell,
    interval_columns,
    lines_over_budgets,
    named,
    there,
)
from bench.isoflop.pages.sizes import size_figures
from bench.report.figures import Drawing, canvas, finish, method_colours, styled
from bench.report.load import CONTRACTS as WORDS
from bench.report.page import Part
from bench.report.tables import Table


def contracts_part(results: Results, compared: Sequence[Comparison]) -> Part:
    """Differences from dense under every contract."""
    notes = [
        "Equal training FLOPs: each method at its own best size. Equal forward FLOPs, active or total parameters: at "
        "Dense’s best size, which favours Dense. Equal time: FLOP-optimal sizes after the training time of Dense’s "
        f"best run, by steps timed alone{on_threads(results)}. In equal time the 95 % CI also covers timing "
        "noise. Bars without an end cap are open intervals."
    ]
    differences = [_difference_figure(results, compared, name, f"Loss {WORDS[name]}") for name in CONTRACTS]
    active = size_figures(results, "params_active")[-1:]
    drawings = there(*differences, *active, wall_clock_figure(results))
    return Part("contracts", "Other contracts", notes, drawings, [contracts_table(results, compared)])


def _difference_figure(results: Results, compared: Sequence[Comparison], contract: str, heading: str) -> Drawing | None:
    """Loss minus dense's over budgets, a line per method, with intervals."""
    colours = method_colours(results.methods)
    lines: dict[str, tuple[str, Line]] = {
        title(method): (
            colours[method],
            [(c.budget, c.value) for c in compared if (c.method, c.contract) == (method, contract) and c.value],
        )
        for method in results.methods
        if method != REFERENCE
    }
    return lines_over_budgets(results, lines, f"difference_{contract}", heading, f"loss minus Dense, {UNIT}", "")


@styled
def wall_clock_figure(results: Results) -> Drawing | None:
    """Loss of each method's optimum against the seconds its training takes on this machine."""
    colours, lines = method_colours(results.methods), frontiers(results)
    if not lines:
        return None
    figure, axes = canvas()
    for method, (seconds, loss) in lines.items():
        axes.plot(seconds, loss, marker="o", markersize=4, color=colours[method], label=title(method))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("seconds of training, one run at a time")
    axes.set_ylabel(f"loss at the optimum, {UNIT}")
    axes.legend()
    return finish(
        figure, "wall_clock", "Loss of FLOP-optimal sizes against time",
        "Loss of each method's optimum against training seconds.",
        "Sizes are optimal for FLOPs, not for time.",
    )  # fmt: skip


def contracts_table(results: Results, compared: Sequence[Comparison]) -> Table:
    """A row per method and budget, a column per contract."""
    cells = {(c.method, c.budget, c.contract): c for c in compared}
    rows = []
    for method in (name for name in results.methods if name != REFERENCE):
        for budget in results.budgets:
            own = [cells[method, budget, contract] for contract in CONTRACTS]
            values = (difference_cell(c.value) if c.value else c.why for c in own)
            rows.append([named(method, budget), *values])
    data = pd.DataFrame(
        [{"method": c.method, "budget": c.budget, "contract": c.contract, "why_not": c.why}
         | interval_columns(c.value, "minus_dense") for c in compared]
    )  # fmt: skip
    caption = f"Validation loss minus Dense’s, {UNIT} (95 % CI)."
    return Table("contracts", caption, [NAMED, *(WORDS[name] for name in CONTRACTS)], rows, data)
