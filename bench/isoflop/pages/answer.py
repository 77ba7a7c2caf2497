"""The first screen of an isoFLOP report: its finding as a sentence, and a row for each method, pooled and by budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.formats import decimal, percent, power
from bench.isoflop.analysis.differences import AT_EDGE, best_difference, edge
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.verdicts import Against
from bench.isoflop.pages.section import UNIT, difference_cell
from bench.stats.verdict import SMALLEST_EFFECT, Verdict
from bench.web.figures import method_colours, themed
from bench.web.intervals import Mark, Scale

_SAYS = {Verdict.BETTER: "lower loss than dense", Verdict.WORSE: "higher loss than dense"}


@dataclass(frozen=True)
class AtBudget:
    """A method's best shape minus dense's at one budget. bound: one of the two is at the grid edge."""

    budget: str
    mark: Mark | None
    words: str
    sign: str
    bound: bool


@dataclass(frozen=True)
class Row:
    """One method. mark: the difference pooled over budgets, with its verdict."""

    method: str
    label: str
    colour: str  # of the style sheet
    mark: Mark
    words: str
    verdict: Verdict
    budgets: list[AtBudget]


@dataclass(frozen=True)
class Answer:
    """The rows, lowest loss first. scale: of pooled differences; wider: of those at one budget. band: the smallest
    effect of interest, nats/token. dense: the baseline's loss, in words.
    """

    finding: str
    rows: list[Row]
    scale: Scale
    wider: Scale
    band: float | None
    dense: str

    @property
    def marks(self) -> list[Mark]:
        return [row.mark for row in self.rows]


def first_screen(results: Results, against: Sequence[Against]) -> Answer:
    """The page's answer: every method against dense."""
    colours = method_colours(results.methods)
    order = sorted(against, key=lambda each: each.difference.value)
    rows = [_row(results, each, colours[each.method]) for each in order]
    at_budgets = [cell.mark for row in rows for cell in row.budgets if cell.mark]
    losses = [each.dense_loss for each in order]
    return Answer(
        finding=finding(order),
        rows=rows,
        scale=Scale([row.mark for row in rows]),
        wider=Scale(at_budgets),
        band=SMALLEST_EFFECT * min(losses) if losses else None,
        dense=f"{decimal(min(losses))} {UNIT}" if losses else "",
    )


def finding(order: Sequence[Against]) -> str:
    """One sentence: which methods reach lower or higher loss than dense, and which are equivalent or inconclusive."""
    named = {verdict: [title(each.method) for each in order if each.verdict == verdict] for verdict in Verdict}
    clauses = [
        f"{listed(named[verdict])} reach{'es' * (len(named[verdict]) == 1)} {words}"
        for verdict, words in _SAYS.items() if named[verdict]
    ]  # fmt: skip
    for verdict, words in ((Verdict.EQUIVALENT, "equivalent to dense"), (Verdict.INCONCLUSIVE, "inconclusive")):
        if own := named[verdict]:
            clauses.append(f"{listed(own)} {'is' if len(own) == 1 else 'are'} {words}")
    if not clauses:
        return "No method was compared with dense on several seeds at equal training FLOPs"
    return f"At equal training FLOPs, {'; '.join(clauses)}"


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _row(results: Results, each: Against, colour: str) -> Row:
    label = title(each.method)
    share = percent(each.difference.value / each.dense_loss)
    mark = Mark(label, each.difference, colour, each.difference.minimum_detectable)
    cells = [_at_budget(results, each.method, budget, colour) for budget in results.budgets]
    words = f"{difference_cell(each.difference)}, {share}"
    return Row(each.method, label, themed(colour), mark, words, each.verdict, cells)


def _at_budget(results: Results, method: str, budget: float, colour: str) -> AtBudget:
    value = best_difference(results, method, REFERENCE, budget)
    bound = any(edge(results, name, budget) == AT_EDGE for name in (method, REFERENCE))
    if value is None:
        return AtBudget(power(budget), None, "not run", "", bound)
    below = value.below(0.0)
    sign = "○" if below is None else "▼" if below else "▲"
    return AtBudget(power(budget), Mark(title(method), value, colour), difference_cell(value), sign, bound)
