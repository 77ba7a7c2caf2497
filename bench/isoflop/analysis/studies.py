"""Several studies of one question: what each found, and their random-effects mean.

Studies of the same question differ by more than their seeds: each chose its own shapes and learning rates. The mean
over studies therefore has the variance between studies, with studies as the units.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.isoflop.analysis.differences import best_difference, bounded, pooled, pooled_budgets
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.records.isoflop import BudgetDifference, Covariate, StudyDifference, StudySummary
from bench.stats.interval import Interval
from bench.stats.pooling import Pooled, pool_studies

HARD = ("loss of the next token", "entropy of the next token")


@dataclass(frozen=True)
class OneStudy:
    """What one study found: pooled over budgets, and at the budget that all studies have."""

    study: StudySummary
    pooled: Interval
    at: Interval | None
    bounded: list[str]


@dataclass(frozen=True)
class Question:
    """A method against dense in every study; the mean over studies of both values."""

    method: str
    studies: list[OneStudy]
    budget: float | None
    pooled: Pooled
    pooled_at: Pooled | None


def summarise(results: Results, commit: str) -> StudySummary:
    """What to keep of a study. commit: of the repository that holds its runs."""
    found = []
    for method in results.methods:
        value = pooled(results, [method], [REFERENCE]) if method != REFERENCE else None
        if value is None:
            continue
        names = [method, REFERENCE]
        budgets = pooled_budgets(results, names)
        each = [_at(results, method, budget) for budget in budgets]
        found.append(StudyDifference(method=method, minus_dense=value.value, **_error(value), budgets=each,
                                     bounded=bounded(results, names, budgets)))  # fmt: skip
    study = results.study
    routed = study.tokens.depth if study.tokens else {}
    depth = {results.method_of(name): [c for c in use.correlations if c.layer == "all" and c.covariate in HARD]
             for name, use in routed.items()}  # fmt: skip
    machine = study.environment.device_name or study.environment.device
    return StudySummary(created=study.created, source_commit=commit, machine=machine, differences=found, depth=depth)


def _at(results: Results, method: str, budget: float) -> BudgetDifference:
    value = best_difference(results, method, REFERENCE, budget)
    assert value is not None
    return BudgetDifference(budget=budget, minus_dense=value.value, **_error(value))


def _error(value: Interval) -> dict[str, float]:
    assert value.stderr is not None and value.degrees is not None
    return {"stderr": value.stderr, "degrees": float(value.degrees)}


def questions(results: Results) -> list[Question]:
    """Every method that an earlier study compared with dense too, this study last; empty without earlier studies."""
    studies = [*results.earlier, summarise(results, results.study.git_commit or "")]
    found = []
    for method in results.methods:
        own = [(study, each) for study in studies for each in study.differences if each.method == method]
        if len(own) < 2 or own[-1][0] is not studies[-1]:
            continue
        shared = set.intersection(*({at.budget for at in each.budgets} for _, each in own))
        budget = min(shared) if shared else None
        at = [next((_interval(at) for at in each.budgets if at.budget == budget), None) for _, each in own]
        rows = [OneStudy(study, _interval(each), there, each.bounded)
                for (study, each), there in zip(own, at, strict=True)]  # fmt: skip
        known = [there for there in at if there is not None]
        means = pool_studies([row.pooled for row in rows]), pool_studies(known) if known else None
        found.append(Question(method, rows, budget, *means))
    return found


def depth_models(results: Results) -> list[list[Covariate]]:
    """Of every model whose depth routers were studied, here and earlier: its correlations with hard tokens."""
    tokens = results.study.tokens
    own = [models for seeds in (tokens.seeds if tokens else {}).values() for models in seeds.values()]
    studies = [*results.earlier, summarise(results, "")]
    return [*own, *(correlations for study in studies for correlations in study.depth.values())]


def _interval(kept: BudgetDifference | StudyDifference) -> Interval:
    return Interval.from_stderr(kept.minus_dense, kept.stderr, kept.degrees)
