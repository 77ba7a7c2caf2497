"""Which method wins at equal training FLOPs, at which size, and whether the difference is significant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from bench.formats import decimal, power, scaled
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.differences import AT_EDGE, below, best_difference, difference, edge
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.pages.section import NAMED, UNIT, difference_cell, named
from bench.report.tables import Table
from bench.stats.interval import CONFIDENCE


def winners(results: Results) -> list[str]:
    """A sentence per budget: the best shape of lowest loss on fresh seeds, and the others' losses minus it.

    The same seeds show which loss is lowest, so intervals are 95 % for all pairs of methods together (Bonferroni).
    """
    found = []
    for budget in results.budgets:
        best = {method: results.best(method, budget) for method in results.methods}
        fresh = {method: runs[runs["stage"] != "grid"]["loss"] for method, runs in best.items()}
        losses = {method: float(own.mean()) for method, own in fresh.items() if len(own)}
        if len(losses) < 2:
            continue
        first, *others = sorted(losses, key=losses.__getitem__)
        confidence = 1 - (1 - CONFIDENCE) / math.comb(len(losses), 2)
        size = best[first].iloc[0]
        above = {other: difference(results, best[other], best[first], confidence) for other in others}
        surely = [title(o) for o in others if below(results, budget, [o], [first], above[o]) is False]
        where = edge(results, first, budget)
        found.append(
            f"At {power(budget)} FLOPs {title(first)} has the lowest loss: {decimal(losses[first])} {UNIT} "
            f"({size['n_layers']}×{size['d_model']}{f', {where}' if where else ''}; {scaled(size['params_total'])} "
            f"parameters, {scaled(size['tokens'])} tokens). Others minus it: "
            f"{', '.join(f'{title(other)} {difference_cell(value)}' for other, value in above.items())}. "
            f"Significantly different: {', '.join(surely) or 'none'}."
        )
    return found


def verdicts(results: Results, compared: Sequence[Comparison]) -> list[tuple[str, str]]:
    """(method, sentence): whether it is significantly better or worse than dense at each budget, by two analyses."""
    found = []
    for method in results.methods:
        own = [c for c in compared if c.method == method and c.contract == "train_flops"]
        if not own:
            continue
        sides: dict[str, list[str]] = {}
        for each in own:
            seeds = best_difference(results, method, REFERENCE, each.budget)
            by_seeds = below(results, each.budget, [method], [REFERENCE], seeds)
            by_curves = each.value.below(0.0) if each.value else None
            answers = {answer for answer in (by_seeds, by_curves) if answer is not None}
            side = "inconclusive"
            if len(answers) == 1:
                analyses = "both analyses" if by_seeds == by_curves else "one analysis"
                side = f"significantly {'better' if answers.pop() else 'worse'} by {analyses}"
            sides.setdefault(side, []).append(power(each.budget))
        summary = "; ".join(f"{side} at {', '.join(budgets)} FLOPs" for side, budgets in sides.items())
        found.append((title(method), f"against Dense: {summary}.{_rate_at_edge(results, method)}"))
    return found


def verdict_table(results: Results, compared: Sequence[Comparison]) -> Table:
    """The differences behind the verdicts; the CSV files of seeds and contracts have them unrounded."""
    rows = []
    own = [c for c in compared if c.contract == "train_flops"]
    for each in sorted(own, key=lambda c: results.methods.index(c.method)):
        seeds = difference_cell(best_difference(results, each.method, REFERENCE, each.budget))
        bound = _bound(results, each.method, each.budget)
        curves = difference_cell(each.value) if each.value else each.why
        rows.append([named(each.method, each.budget), f"{seeds}{bound}", curves])
    caption = f"Validation loss minus Dense’s, {UNIT} (95 % CI)."
    return Table("verdict", caption, [NAMED, "by seeds", "by curves"], rows, pd.DataFrame())


def chance(results: Results, compared: Sequence[Comparison]) -> str:
    """The number of intervals, because some of many exclude 0 by chance."""
    own = [c for c in compared if c.contract == "train_flops"]
    intervals = sum(c.value is not None and c.value.low is not None for c in own)
    for c in own:
        seeds = best_difference(results, c.method, REFERENCE, c.budget)
        intervals += seeds is not None and seeds.low is not None
    if not intervals:
        return ""
    return (
        "Both analyses use the same runs, so they are not independent. Of "
        f"{intervals} intervals against Dense about {intervals / 20:.1f} would exclude 0 by chance."
    )


def _rate_at_edge(results: Results, method: str) -> str:
    """The methods whose learning rate is at the edge of those that trained well; or empty."""
    rules = results.study.learning_rates
    ends = {results.method_of(name) for name, rule in rules.items() if rule.status == "edge"}
    names = [title(name) for name in (method, REFERENCE) if name in ends]
    return f" The learning rate of {' and '.join(names)} is at the sweep’s edge; another may do better." * bool(names)


def _bound(results: Results, method: str, budget: float) -> str:
    """The methods whose best shape is at the grid edge, so that a better one may lie beyond; or empty."""
    names = [title(name) for name in (method, REFERENCE) if edge(results, name, budget) == AT_EDGE]
    return f" (best shape of {' and '.join(names)} {AT_EDGE}: a bound)" if names else ""
