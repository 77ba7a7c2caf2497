"""Which method wins at equal training FLOPs: the verdicts pooled over budgets, and what the rule can decide."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.formats import DASH, decimal, percent, power
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.differences import AT_EDGE, best_difference, edge, fresh
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.studies import Question
from bench.isoflop.analysis.verdicts import Against, dense_loss, larger, operating_characteristic, plan_of
from bench.isoflop.pages.section import UNIT, difference_cell, interval_columns, named, shape_of
from bench.isoflop.pages.setup import repeats
from bench.stats.interval import Interval
from bench.stats.pooling import Pooled
from bench.stats.verdict import SMALLEST_EFFECT, STRICTER_EFFECT, Verdict, decide
from bench.web.page import Part
from bench.web.tables import Table

RULE = (
    "Best shapes on seeds not used for model selection, mean over budgets. The 95 % CI covers seeds, validation "
    "documents and, where rates were swept, learning rates. Better or worse: it excludes 0. Equivalent: the 90 % CI "
    "lies within ±1 % of Dense’s loss, the smallest effect of interest. Both are tested at 5 % for all methods "
    "together (Holm). A single budget has no verdict. Curves, for comparison: minima of parabolas in the log of "
    "forward FLOPs."
)
_EFFECTS = (0.0, 0.01, 0.02)  # of Dense's loss
_SAYS = {
    Verdict.BETTER: "better than Dense",
    Verdict.WORSE: "worse than Dense",
    Verdict.EQUIVALENT: "equivalent to Dense",
    Verdict.INCONCLUSIVE: "inconclusive",
}


def verdicts(results: Results, against: Sequence[Against], asked: Sequence[Question]) -> list[tuple[str, str]]:
    """(method, sentence): the verdict pooled over budgets, with the difference from dense; then over studies."""
    found = []
    for each in against:
        others = [
            f" Mean of {len(one.studies)} studies: {difference_cell(one.pooled.effect)}, {_verdict(results, one)}."
            for one in asked if one.method == each.method
        ]  # fmt: skip
        found.append((title(each.method), _sentence(results, each) + "".join(others)))
    return found


def _sentence(results: Results, each: Against) -> str:
    value, share = each.difference, percent(each.difference.value / each.dense_loss)
    text = f"{_SAYS[each.verdict]}: {difference_cell(value)} {UNIT}, {share} of the loss"
    if each.verdict == Verdict.INCONCLUSIVE and value.minimum_detectable:
        text += f"; minimum detectable effect {decimal(value.minimum_detectable)} (80 % power)"
    return f"{text}.{_bound(results, each)}"


def _bound(results: Results, each: Against) -> str:
    """That a method may do better than it did, and why; or empty."""
    shapes = [name for name in each.bounded if any(edge(results, name, b) == AT_EDGE for b in each.budgets)]
    rates = [name for name in each.bounded if results.rate_status(name) == "edge"]
    shape, rate = (" and ".join(map(title, names)) for names in (shapes, rates))
    text = f" The best shape of {shape} is at the grid edge; another size may do better." * bool(shapes)
    return text + f" The learning rate of {rate} is at the sweep’s edge; another may do better." * bool(rates)


def winners(results: Results) -> str:
    """The best shape of lowest loss at each budget, on seeds not used for model selection; empty without such."""
    found = []
    for budget in results.budgets:
        best = {method: fresh(results.best(method, budget)) for method in results.methods}
        losses = {method: float(own["loss"].mean()) for method, own in best.items() if len(own)}
        if len(losses) < 2:
            continue
        first = min(losses, key=losses.__getitem__)
        found.append(f"at {power(budget)} FLOPs {title(first)} ({shape_of(best[first])}), {decimal(losses[first])}")
    return f"Lowest loss on those seeds, {UNIT}: {'; '.join(found)}." if found else ""


def verdict_part(results: Results, tables: Sequence[Table], against: Sequence[Against]) -> Part:
    """How the verdicts come about: the rule, every difference, and what the rule can decide."""
    names = [title(each.method) for each in against if each.verdict == Verdict.INCONCLUSIVE]
    missed = f"; inconclusive: {', '.join(names)}" if names else ""
    folded = f"The rule, each budget by seeds and by curves, and the power of the test{missed}"
    return Part("verdict", "Verdict", list(filter(None, [RULE, winners(results), repeats(results)])),
                tables=tables, folded=folded)  # fmt: skip


def verdict_table(results: Results, against: Sequence[Against], compared: Sequence[Comparison]) -> Table:
    """A row per method, pooled, with its verdicts, and one per budget, which has none."""
    pooled = {each.method: each for each in against}
    at = {(c.method, c.budget): c for c in compared if c.contract == "train_flops"}
    rows, data = [], []
    for method in (name for name in results.methods if name != REFERENCE):
        if method in pooled:
            each = pooled[method]
            rows.append([f"{title(method)}, pooled", difference_cell(each.difference), "", each.verdict, each.stricter])
            data.append({"method": method, "verdict": each.verdict.value, "stricter": each.stricter.value}
                        | interval_columns(each.difference, "minus_dense"))  # fmt: skip
        for budget in results.budgets:
            curve = at.get((method, budget))
            curves = difference_cell(curve.value) if curve and curve.value else curve.why if curve else DASH
            seeds = difference_cell(best_difference(results, method, REFERENCE, budget))
            rows.append([named(method, budget), f"{seeds}{_edge_note(results, method, budget)}", curves, "", ""])
    effects = [f"verdict ({100 * effect:g} %)" for effect in (SMALLEST_EFFECT, STRICTER_EFFECT)]
    caption = f"Validation loss minus Dense’s, {UNIT} (95 % CI). Verdicts by two smallest effects of interest."
    return Table("verdict", caption, ["", "by seeds", "by curves", *effects], rows, pd.DataFrame(data))


def _edge_note(results: Results, method: str, budget: float) -> str:
    """The methods whose best shape is at the grid edge, so that a better one may lie beyond; or empty."""
    names = [title(name) for name in (method, REFERENCE) if edge(results, name, budget) == AT_EDGE]
    return f" (best shape of {' and '.join(names)} {AT_EDGE}: a bound)" if names else ""


def power_table(results: Results, against: Sequence[Against]) -> Table:
    """How often the rule decides, by true effect: with this study's seeds, and with more."""
    plan, rows, data = plan_of(results, against), [], []
    if plan is not None:
        dense = plan.effect / SMALLEST_EFFECT
        for each in (plan, larger(plan)):
            name = f"{each.seeds} seeds, {len(each.sds)} budget{'s' * (len(each.sds) != 1)}"
            found = operating_characteristic(each, [-share * dense for share in _EFFECTS])
            for share, shares in zip(_EFFECTS, found, strict=True):
                truth = f"{100 * share:g} % better" if share else "equal"
                rows.append([f"{name}: {truth}", *(percent(shares[verdict], 0) for verdict in Verdict)])
                data.append({"seeds": each.seeds, "budgets": len(each.sds), "effect": -share * dense} | shares)
    caption = (
        "How often the rule gives each verdict, by the truth (simulated). First rows: this study. Last rows: more "
        "seeds, at budgets as noisy as the largest. Worst case of Holm’s correction."
    )
    return Table("operating_characteristic", caption, ["truth", *Verdict], rows, pd.DataFrame(data))


def studies_table(results: Results, found: Sequence[Question]) -> Table:
    """Every study of this question, and their random-effects mean, method by method."""
    rows: list[list[str]] = []
    data: list[dict[str, object]] = []
    budget = found[0].budget if found else None
    for each in found:
        for one in each.studies:
            study = one.study
            name = "this study" if one is each.studies[-1] else f"{study.created[:10]}, {study.source_commit}"
            mark = " (a bound)" if one.bounded else ""
            rows.append(
                [f"{title(each.method)}, {name}", difference_cell(one.pooled) + mark, difference_cell(one.at), ""]
            )
            data.append({"method": each.method, "created": study.created, "source_commit": study.source_commit,
                         "bounded": " ".join(one.bounded), **_both(one.pooled, one.at)})  # fmt: skip
        cells = [_with_tau(mean) if mean else DASH for mean in (each.pooled, each.pooled_at)]
        rows.append([f"{title(each.method)}, mean of {len(each.studies)}", *cells, _verdict(results, each)])
        mean = _both(each.pooled.effect, each.pooled_at.effect if each.pooled_at else None)
        data.append({"method": each.method, "created": "all", "tau": each.pooled.tau, "p": each.pooled.p, **mean})
    caption = (
        f"All studies of this question, by date and commit: loss minus Dense’s, {UNIT} (95 % CI). Mean: random effects "
        "(Paule–Mandel, Hartung–Knapp). τ: standard deviation between studies; p: of τ = 0. A bound: a best shape or "
        "learning rate is at an edge, so a method may do better."
    )
    columns = ["", "pooled over budgets", f"at {power(budget)} FLOPs" if budget else "at one budget", "verdict"]
    return Table("all_studies", caption, columns, rows, pd.DataFrame(data))


def _both(pooled: Interval, at: Interval | None) -> dict[str, float | None]:
    return interval_columns(pooled, "minus_dense") | interval_columns(at, "at_one_budget")


def _verdict(results: Results, each: Question) -> Verdict:
    return decide(each.pooled.effect, SMALLEST_EFFECT * dense_loss(results, results.budgets))


def _with_tau(pooled: Pooled) -> str:
    spread = f"; τ {decimal(pooled.tau)}, p {pooled.p:.2g}" if pooled.p is not None else ""
    return f"{difference_cell(pooled.effect)}{spread}"
