"""The page that ranks methods at named budgets, over all comparisons of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.formats import DASH, scaled, signed, span
from bench.records.ci import FILE as CI
from bench.report.differences import Difference, differences
from bench.report.load import Comparison, Group, contract_words
from bench.stats.verdict import FEWEST_SEEDS, Verdict
from bench.web.figures import method_colours
from bench.web.intervals import MOST_MARKS, Mark, Scale
from bench.web.page import Page, write_page
from bench.web.tables import Table

NAME = "ranking"
TEMPLATES = Path(__file__).parent / "templates"
RULE = (
    f"A method is ranked with at least {FEWEST_SEEDS} seeds, and so is its dense baseline. It ranks above dense if its "
    "validation loss is significantly lower, and below if it is significantly higher: at the 5 % level, after Holm’s "
    "correction for all methods of its comparison. All others share dense’s rank. Methods of one rank are in the order "
    "of their loss, which says nothing about the next run. Budgets of different texts or scales are not comparable."
)
ABOVE, LEVEL, BELOW = _ORDER = ("above dense", "with dense", "below dense")
_RANKS = {Verdict.BETTER: ABOVE, Verdict.WORSE: BELOW}


@dataclass(frozen=True)
class Ranked:
    """A row; `rank` in words."""

    rank: str
    difference: Difference
    mark: Mark


@dataclass(frozen=True)
class Budget:
    """The ranking of one comparison."""

    comparison: str
    title: str
    created: str
    rows: list[Ranked]
    scale: Scale


def write_ranking(comparisons: Sequence[Comparison], reports: Path) -> Path | None:
    """Write `reports`/ranking; returns the page, or None, without one, if no method has seeds enough."""
    measured = [each for each in comparisons if not (each.folder / CI).exists()]  # a gate's baseline has one seed
    budgets = [
        _budget(comparison, group, ranked)
        for comparison in measured
        for group, compared in zip(comparison.groups, differences(comparison.groups), strict=True)
        if (ranked := [each for each in compared if each.loss and min(each.seeds) >= FEWEST_SEEDS])
    ]
    if not budgets:
        return None
    rows = [row for budget in budgets for row in budget.rows]
    above = list(dict.fromkeys(row.difference.label for row in rows if row.rank == ABOVE))
    page = Page(
        name=NAME,
        kind="Ranking",
        finding=f"Ranked above dense: {', '.join(above) or 'no method'}",
        facts=[f"{len(budgets)} budget{'s' * (len(budgets) != 1)}", f"{len(rows)} methods against dense"],
        created=max(budget.created for budget in budgets),
        marks=[row.mark for row in budgets[0].rows][:MOST_MARKS],
    )
    table = _table(budgets)
    values = {"budgets": budgets, "rule": RULE, "table": table}
    return write_page(reports, page, NAME, [], [table], values, TEMPLATES)


def _budget(comparison: Comparison, group: Group, ranked: Sequence[Difference]) -> Budget:
    first, colours = group.methods[0].first, method_colours([method.label for method in group.methods])
    rows = [
        Ranked(_RANKS.get(each.verdict, LEVEL), each, Mark(each.label, each.loss, colours[each.label]))
        for each in ranked
        if each.loss
    ]
    rows.sort(key=lambda row: (_ORDER.index(row.rank), row.mark.interval.value))
    text = (first.config.get("data") or {}).get("name", "unnamed text")
    title = f"{scaled(first.flops.budget)} FLOPs, {text}, {contract_words(first.contract)}"
    created = max(run.record.run.created for run in group.runs)
    return Budget(comparison.name, title, created, rows, Scale([row.mark for row in rows]))


def _table(budgets: Sequence[Budget]) -> Table:
    columns = ["budget", "date", "method", "rank", "loss minus dense, nats/token", "95 % CI", "seeds", "verdict"]
    rows, data = [], []
    for budget in budgets:
        for row in budget.rows:
            each, loss = row.difference, row.mark.interval
            ci = span(loss.low, loss.high, signed) if loss.ends else DASH
            shown = [budget.title, budget.created[:10], each.label, row.rank, signed(loss.value), ci]
            rows.append([*shown, " and ".join(map(str, each.seeds)), str(each.verdict)])
            data.append(
                {"comparison": budget.comparison, "budget": budget.title, "created": budget.created,
                 "method": each.label, "rank": row.rank, "difference": loss.value, "low": loss.low, "high": loss.high,
                 "seeds": each.seeds[0], "dense_seeds": each.seeds[1], "verdict": str(each.verdict)}
            )  # fmt: skip
    return Table("ranking", "Differences are over seeds and validation documents.", columns, rows, pd.DataFrame(data))
