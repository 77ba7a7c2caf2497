"""Do the gains of depth and of experts add up? MoDE against MoE and against MoD, at equal training FLOPs."""

from __future__ import annotations

import pandas as pd

from bench.isoflop.analysis.differences import PARTS, best_difference, sum_of_gains
from bench.isoflop.analysis.results import REFERENCE, Results, title
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
from bench.report.figures import method_colours
from bench.report.page import Part
from bench.report.tables import Table
from bench.stats.interval import Interval

Pairs = dict[tuple[str, str, float], Interval]  # (MoDE, other method, budget) -> loss of the first minus the other's


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
    return Part("additivity", "MoDE against its parts", notes, there(figure), [additivity_table(results, pairs)])


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
        rows.append([named(mode, budget), *map(difference_cell, against.values())])
        row: dict[str, object] = {"method": mode, "budget": budget}
        for name, value in against.items():
            row |= interval_columns(value, f"minus_{name}")
        data.append(row)
    caption = (
        f"Loss of MoDE minus the other’s, {UNIT} (95 % CI). Last: its difference from Dense minus the sum of MoE’s and "
        "MoD’s; above 0 it gains less than both together."
    )
    columns = [NAMED, "minus MoE", "minus MoD", "minus Dense", "minus the sum of gains"]
    return Table("mode_against_parts", caption, columns, rows, pd.DataFrame(data))
