"""Differences between methods over budgets: from dense under every contract, and of MoDE from its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bench.formats import power
from bench.isoflop.analysis.contracts import CONTRACTS, Comparison
from bench.isoflop.analysis.differences import PARTS, best_difference, sum_of_gains
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.wall_clock import frontiers, on_threads
from bench.isoflop.pages.section import NAMED, UNIT, counted, difference_cell, interval_columns, named, there
from bench.isoflop.pages.sizes import size_figures
from bench.report.load import CONTRACTS as WORDS
from bench.stats.interval import Interval
from bench.web.figures import DENSE, Drawing, canvas, error_bars, finish, method_colours, styled
from bench.web.page import Part
from bench.web.tables import Table

Line = list[tuple[float, Interval]]  # (budget, value)
Pairs = dict[tuple[str, str, float], Interval]  # (MoDE, other method, budget) -> loss of the first minus the other's


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
    others = [each.value for each in compared if each.contract != "train_flops"]
    folded = f"Equal forward FLOPs, parameters or time, loss minus Dense’s: {counted(others)}"
    return Part("contracts", "Other contracts", notes, drawings, [contracts_table(results, compared)], folded=folded)


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
    """A row per method and budget, a column per contract but equal training FLOPs; the CSV has that too."""
    cells = {(c.method, c.budget, c.contract): c for c in compared}
    others = [contract for contract in CONTRACTS if contract != "train_flops"]  # which the verdict's table has
    rows = []
    for method in (name for name in results.methods if name != REFERENCE):
        for budget in results.budgets:
            own = [cells[method, budget, contract] for contract in others]
            values = (difference_cell(c.value) if c.value else c.why for c in own)
            rows.append([named(method, budget), *values])
    data = pd.DataFrame(
        [{"method": c.method, "budget": c.budget, "contract": c.contract, "why_not": c.why}
         | interval_columns(c.value, "minus_dense") for c in compared]
    )  # fmt: skip
    caption = f"Validation loss minus Dense’s, {UNIT} (95 % CI)."
    return Table("contracts", caption, [NAMED, *(WORDS[name] for name in others)], rows, data)


def additivity_part(results: Results) -> Part:
    """Empty if the study has no MoDE."""
    notes = [
        "Best shapes, on seeds not used for model selection. Additive gains: MoDE beats Dense by the sum of its parts."
    ]
    pairs = mode_pairs(results)
    colours = method_colours(results.methods)
    lines: dict[str, tuple[str, Line]] = {
        f"{title(mode)} minus {title(part)}": (
            colours.get(part, ""), [(budget, value) for (*own, budget), value in pairs.items() if own == [mode, part]]
        )
        for mode in results.modes for part in PARTS
    }  # fmt: skip
    figure = lines_over_budgets(
        results, lines, "mode_against_parts", "MoDE against MoE and MoD", f"loss minus the part’s, {UNIT}",
        "Below 0 MoDE is better.",
    )  # fmt: skip
    against = [value for (_, other, _), value in pairs.items() if other != REFERENCE]
    folded = f"MoDE’s loss minus MoE’s and MoD’s, by budget: {counted(against)}"
    tables = [additivity_table(results, pairs)]
    return Part("additivity", "MoDE against its parts", notes, there(figure), tables, folded=folded)


def mode_pairs(results: Results) -> Pairs:
    """Every MoDE against MoE, MoD and dense, best shapes, budget by budget."""
    others = [name for name in (*PARTS, REFERENCE) if name in results.methods]
    keys = ((mode, other, budget) for mode in results.modes for budget in results.budgets for other in others)
    values = {key: best_difference(results, *key) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def additivity_table(results: Results, pairs: Pairs) -> Table:
    """A row per MoDE and budget; last, against the sum of the parts' gains over dense."""
    rows, data = [], []
    for mode, budget in dict.fromkeys((mode, budget) for mode, _, budget in pairs):
        against = {name: pairs.get((mode, name, budget)) for name in (*PARTS, REFERENCE)}
        against["sum_of_parts"] = sum_of_gains(results, mode, budget)
        shown = [value for name, value in against.items() if name != REFERENCE]  # which the verdict's table has
        rows.append([named(mode, budget), *map(difference_cell, shown)])
        row: dict[str, object] = {"method": mode, "budget": budget}
        for name, value in against.items():
            row |= interval_columns(value, f"minus_{name}")
        data.append(row)
    caption = (
        f"Loss of MoDE minus the other’s, {UNIT} (95 % CI). Last: its difference from Dense minus the sum of MoE’s and "
        "MoD’s; above 0 it gains less than both together."
    )
    columns = [NAMED, "minus MoE", "minus MoD", "minus the sum of gains"]
    return Table("mode_against_parts", caption, columns, rows, pd.DataFrame(data))


@styled
def lines_over_budgets(
    results: Results, lines: Mapping[str, tuple[str, Line]], name: str, heading: str, ylabel: str, caption: str
) -> Drawing | None:
    """Differences with their intervals over training budgets; `lines`: label -> colour and values."""
    lines = {label: line for label, line in lines.items() if line[1]}
    if not lines:
        return None
    figure, axes = canvas()
    for place, (label, (colour, values)) in enumerate(lines.items()):
        x = np.array([budget for budget, _ in values]) * (1 + 0.04 * (place - (len(lines) - 1) / 2))
        error_bars(axes, x, [value for _, value in values], colour, linestyle="-", label=label)
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(results.budgets, [power(budget) for budget in results.budgets])
    axes.minorticks_off()
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(ylabel)
    axes.legend()
    return finish(figure, name, heading, f"{heading}, by training budget.", caption)
