"""Which method wins at equal training FLOPs, at which size, and whether the difference is real."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.formats import decimal, power, scaled
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.differences import best_difference, difference
from bench.isoflop.analysis.edges import AT_EDGE, below, edge
from bench.isoflop.analysis.evidence import beyond
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.pages.cells import difference_cell
from bench.stats.paired import CONFIDENCE


def winners(results: Results) -> list[str]:
    """A sentence a budget: the best shape of least loss on fresh seeds, and what the others' losses are above it.

    Which is least was seen on the same seeds: so intervals are 95 % for all pairs of methods together (Bonferroni).
    """
    told = []
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
        surely = [other for other in others if below(results, budget, [other], [first], above[other]) is False]
        told.append(
            f"At {power(budget)} FLOPs {first} has the least loss, {decimal(losses[first])}, with {size['n_layers']} "
            f"layers of width {size['d_model']}{edge(results, first, budget)} ({scaled(size['params_total'])} "
            f"parameters, {scaled(size['tokens'])} tokens). Above it: "
            f"{', '.join(f'{other} {difference_cell(value)}' for other, value in above.items())}. Told apart from it: "
            f"{', '.join(surely) or 'none'}."
        )
    return told


def verdicts(results: Results, compared: Sequence[Comparison]) -> list[tuple[str, str]]:
    """A sentence a method: whether it is better or worse than dense at every budget, by two analyses."""
    found = []
    for method in results.methods:
        own = [c for c in compared if c.method == method and c.contract == "train_flops"]
        if not own:
            continue
        sides: dict[str, list[str]] = {}
        values = []
        for each in own:
            seeds = best_difference(results, method, REFERENCE, each.budget)
            by_seeds = below(results, each.budget, [method], [REFERENCE], seeds)
            by_curves = beyond(each.value, 0.0) if each.value else None
            answers = {answer for answer in (by_seeds, by_curves) if answer is not None}
            if len(answers) == 1:
                surely = "by both analyses" if by_seeds == by_curves else "by one of the two"
                sides.setdefault(f"{'better' if answers.pop() else 'worse'} {surely}", []).append(power(each.budget))
            curve = difference_cell(each.value) if each.value else each.why
            every = difference_cell(seeds.every if seeds else None)
            at = f"{power(each.budget)} FLOPs{_bound(results, method, each.budget)}"
            values.append(f"{at}: {difference_cell(seeds)}, with the seed of the choice {every}; by curves {curve}")
        told = ", ".join(f"{side} at {' and '.join(budgets)} FLOPs" for side, budgets in sides.items())
        left = len(own) - sum(map(len, sides.values()))
        rest = f"{', and ' if told else ''}not to be told from it at {left} of {len(own)} budgets" if left else ""
        minus = f"Loss minus dense’s, nats a token: {'. '.join(values)}."
        found.append((method, f"against dense: {told}{rest}. {minus}{_rate_at_an_end(results, method)}"))
    return found


def how_sure(results: Results, compared: Sequence[Comparison]) -> str:
    """How many intervals there are, for of many some exclude 0 by luck."""
    own = [c for c in compared if c.contract == "train_flops"]
    intervals = sum(c.value is not None and c.value.low is not None for c in own)
    for c in own:
        seeds = best_difference(results, c.method, REFERENCE, c.budget)
        intervals += seeds is not None and seeds.low is not None
    if not intervals:
        return ""
    return (
        "Both rest on the same runs, so that they do not confirm one another as two experiments would, and of "
        f"{intervals} "
        f"intervals against dense about {intervals / 20:.1f} would exclude 0 by luck alone."
    )


def _rate_at_an_end(results: Results, method: str) -> str:
    """Whose learning rate is the lowest or highest that trained well, which is no optimum; or empty."""
    rules = results.study.learning_rates
    ends = {results.labels.get(name, name) for name, rule in rules.items() if rule.status == "edge"}
    names = [name for name in (method, REFERENCE) if name in ends]
    if not names:
        return ""
    return (
        f" The learning rate of {' and '.join(names)} is at an end of those that trained well; another may do better."
    )


def _bound(results: Results, method: str, budget: float) -> str:
    """Whose best shape is at the end of what was run, so that a better one may lie beyond; or empty."""
    names = [name for name in (method, REFERENCE) if edge(results, name, budget) == AT_EDGE]
    return f" (best shape of {' and '.join(names)}{AT_EDGE.replace(',', '')})" if names else ""
