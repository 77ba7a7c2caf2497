"""Every method against dense, pooled over the budgets: the page's one family of tests, and what the rule can decide.

Better, worse or equivalent is decided for all methods together (Holm 1979). The operating characteristic simulates the
same rule: how often it decides, given a true effect, at a number of seeds and budgets.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from bench.isoflop.analysis.differences import (
    bounded,
    fresh,
    pooled,
    pooled_budgets,
    seed_spread,
    shared_variance,
    within_bounds,
)
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.difference import Source
from bench.stats.interval import Interval
from bench.stats.pooling import pool_budgets
from bench.stats.verdict import SMALLEST_EFFECT, STRICTER_EFFECT, Verdict, decide_all

_DRAWS = 400  # of the variances


@dataclass(frozen=True)
class Against:
    """A method's best shapes against dense's. difference: mean over `budgets`, nats/token.

    verdict, stricter: by the smallest effect of interest, and by half of it. bounded: which of the two may do better.
    dense_loss: mean over the budgets.
    """

    method: str
    difference: Interval
    dense_loss: float
    budgets: list[float]
    verdict: Verdict = Verdict.INCONCLUSIVE
    stricter: Verdict = Verdict.INCONCLUSIVE
    bounded: list[str] = field(default_factory=list)


def against_dense(results: Results) -> list[Against]:
    """A verdict on every method that has seeds at one budget or more."""
    found = []
    for method in results.methods:
        value = pooled(results, [method], [REFERENCE]) if method != REFERENCE else None
        if value is not None:
            budgets = pooled_budgets(results, [method, REFERENCE])
            found.append(Against(method, value, dense_loss(results, budgets), budgets))
    verdicts = (
        decide_all([each.difference for each in found], [effect * each.dense_loss for each in found])
        for effect in (SMALLEST_EFFECT, STRICTER_EFFECT)
    )
    return [_with_verdicts(results, *each) for each in zip(found, *verdicts, strict=True)]


def dense_loss(results: Results, budgets: Sequence[float]) -> float:
    """Of its best shapes, on seeds not used for model selection, mean over budgets, nats/token."""
    losses = [fresh(results.best(REFERENCE, budget))["loss"].mean() for budget in budgets]
    return float(np.nanmean(losses))


def _with_verdicts(results: Results, each: Against, verdict: Verdict, stricter: Verdict) -> Against:
    own, dense = (bounded(results, [name], each.budgets) for name in (each.method, REFERENCE))
    verdict, stricter = (within_bounds(answer, own, dense) for answer in (verdict, stricter))
    return Against(each.method, each.difference, each.dense_loss, each.budgets, verdict, stricter, [*own, *dense])


@dataclass(frozen=True)
class Plan:
    """Seeds to decide with, for each of the methods of a family and for dense.

    sds: standard deviation over seeds at each budget; degrees: of the estimate of each. shared: variance common to all
    budgets. family: methods that are compared with dense. effect: the smallest effect of interest, nats/token.
    """

    seeds: int
    sds: list[float]
    degrees: float
    shared: float
    family: int
    effect: float


def plan_of(results: Results, found: Sequence[Against]) -> Plan | None:
    """The study's own, with the shared variance of its median method; None if no method has a verdict."""
    if not found:
        return None
    budgets = found[0].budgets
    spreads = [seed_spread(results.sized[results.sized["budget"] == budget]) for budget in budgets]
    seeds = min(len(fresh(results.best(REFERENCE, budget))) for budget in budgets)
    shared = statistics.median_low(shared_variance(results, each.method) for each in found)
    degrees = statistics.fmean(degrees for _, degrees in spreads)
    effect = SMALLEST_EFFECT * found[0].dense_loss
    return Plan(seeds, [sd for sd, _ in spreads], degrees, shared, len(found), effect)


def larger(plan: Plan, seeds: int = 16, budgets: int = 2) -> Plan:
    """With more seeds, which give each method its own variance, at budgets as noisy as the largest."""
    return replace(plan, seeds=seeds, sds=plan.sds[-1:] * budgets, degrees=2 * (seeds - 1))


def operating_characteristic(plan: Plan, effects: Sequence[float]) -> list[dict[Verdict, float]]:
    """For each true difference of one method from dense, nats/token, the probability of each verdict.

    Estimates of the variances are drawn; the mean over budgets is normal. The family's other methods decide nothing,
    which is the worst case of Holm's correction.
    """
    rng = np.random.default_rng(0)
    errors = np.array(plan.sds) * math.sqrt(2 / plan.seeds)
    counted = [dict.fromkeys(Verdict, 0.0) for _ in effects]
    shared = [Source(plan.shared)] * (plan.shared > 0)
    sd = math.sqrt(float(np.sum(errors**2)) / len(errors) ** 2 + plan.shared)  # of the mean over budgets
    for _ in range(_DRAWS):
        estimated = errors * np.sqrt(rng.chisquare(plan.degrees, len(errors)) / plan.degrees)
        found = pool_budgets([Interval(0.0, stderr=each, degrees=plan.degrees) for each in estimated], *shared)
        assert found.stderr is not None
        alike = max(0.0, plan.effect - stats.t.isf(0.05 / plan.family, found.degrees) * found.stderr)
        apart = max(alike, stats.t.isf(0.025 / plan.family, found.degrees) * found.stderr)
        for effect, shares in zip(effects, counted, strict=True):
            below = [stats.norm.cdf(end, effect, sd) for end in (-apart, -alike, alike, apart)]
            shares[Verdict.BETTER] += below[0] / _DRAWS
            shares[Verdict.EQUIVALENT] += (below[2] - below[1]) / _DRAWS
            shares[Verdict.WORSE] += (1 - below[3]) / _DRAWS
    for shares in counted:
        shares[Verdict.INCONCLUSIVE] = 1 - sum(shares.values())
    return counted
