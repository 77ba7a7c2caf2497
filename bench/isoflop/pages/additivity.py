"""Do the gains of depth and of experts add up? MoDE against MoE and against MoD, at equal training FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.formats import power
from bench.isoflop.analysis.differences import SeedDifference, best_difference, sum_of_gains
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.pages.cells import difference_cell, interval_columns
from bench.isoflop.pages.section import Part, there
from bench.report.figures import DENSE, Drawing, canvas, error_bars, finish, method_colours, styled
from bench.report.tables import Table


@dataclass(frozen=True)
class Pair:
    """Loss of the best shape of a MoDE minus that of one of its parts, or of dense."""

    mode: str
    other: str
    budget: float
    difference: SeedDifference


def adding_up_part(results: Results) -> Part:
    """Empty where the study has no MoDE."""
    pairs = mode_pairs(results)
    notes = [
        "Best shapes with several seeds. MoDE has both kinds of router: if their gains add up it is better than either "
        "part, and better than dense by the sum of what the parts are.",
    ]
    figure = adding_up_figure(results, pairs)
    return Part("adding-up", "MoDE against its parts", notes, there(figure), [adding_up_table(results, pairs)])


def mode_pairs(results: Results) -> list[Pair]:
    """Every MoDE against MoE, MoD and dense, budget by budget."""
    found = []
    for mode in (name for name in results.methods if name.startswith("mode")):
        for budget in results.budgets:
            for other in ("moe", "mod", REFERENCE):
                value = best_difference(results, mode, other, budget) if other in results.methods else None
                if value is not None:
                    found.append(Pair(mode, other, budget, value))
    return found


@styled
def adding_up_figure(results: Results, pairs: Sequence[Pair]) -> Drawing | None:
    """Loss of MoDE minus that of MoE and of MoD over budgets."""
    own = [pair for pair in pairs if pair.other != REFERENCE]
    if not own:
        return None
    figure, axes = canvas()
    colours = method_colours(results.methods)
    kinds = list(dict.fromkeys((pair.mode, pair.other) for pair in own))
    for place, (mode, other) in enumerate(kinds):
        line = [pair for pair in own if (pair.mode, pair.other) == (mode, other)]
        x = np.array([pair.budget for pair in line]) * (1 + 0.04 * (place - (len(kinds) - 1) / 2))
        values = [pair.difference for pair in line]
        error_bars(axes, x, values, colours[other], linestyle="-", label=f"{mode} minus {other}")
    axes.axhline(0, color=DENSE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(results.budgets, [power(budget) for budget in results.budgets])
    axes.minorticks_off()
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel("loss minus the part’s, nats a token")
    axes.legend()
    return finish(
        figure, "mode_against_parts", "MoDE against MoE and MoD",
        "Held-out loss of MoDE minus that of MoE and that of MoD, over training budgets.",
        "Below 0 MoDE is better than that part alone. Bars: 95 %, over seeds and documents.",
    )  # fmt: skip


def adding_up_table(results: Results, pairs: Sequence[Pair]) -> Table:
    """A row a MoDE and budget; last, against what the parts' gains over dense come to."""
    values = {(pair.mode, pair.other, pair.budget): pair.difference for pair in pairs}
    rows, data = [], []
    for mode, budget in dict.fromkeys((pair.mode, pair.budget) for pair in pairs):
        against = [values.get((mode, other, budget)) for other in ("moe", "mod", REFERENCE)]
        short = sum_of_gains(results, mode, budget)
        rows.append([f"{mode}, {power(budget)} FLOPs", *map(difference_cell, (*against, short))])
        row: dict[str, object] = {"method": mode, "budget": budget}
        for name, value in zip(("moe", "mod", REFERENCE), against, strict=True):
            row |= interval_columns(value, f"minus_{name}")
        row |= interval_columns(short, "minus_sum_of_parts")
        data.append(row)
    caption = (
        "Held-out loss of MoDE minus the other’s, nats a token, with 95 % intervals over seeds and documents. Last: "
        "its difference from dense minus the sum of MoE’s and MoD’s; above 0 it gains less than both together."
    )
    columns = ["", "minus MoE", "minus MoD", "minus dense", "minus both gains together"]
    return Table("mode_against_parts", caption, columns, rows, pd.DataFrame(data))
