"""From intervals to a verdict, and the evidence on losses and costs.

Each 95 % interval supports a claim (all of it lies where the claim puts it), contradicts it (all of it lies
elsewhere), or neither. A claim that must be supported everywhere needs no correction for the number of intervals (an
intersection-union test, Berger 1982). More than half must contradict it, so that one unlucky interval does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.formats import DASH, percent, power, signed, times, with_interval
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.differences import PARTS, below, best_difference, sum_of_gains
from bench.isoflop.analysis.iso_loss import IsoLoss
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.stats.fits import Fits
from bench.stats.interval import Interval

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
_SAVED = 0.4


@dataclass(frozen=True)
class Evidence:
    """One interval, in words, and whether it supports the claim: True, False, or None for neither."""

    text: str
    supports: bool | None


def everywhere(evidence: Sequence[Evidence]) -> str:
    """The verdict: supported if all support it, contradicted if more than half contradict it."""
    supporting, contradicting = counts(evidence)
    return _verdict(evidence, supporting == len(evidence), 2 * contradicting > len(evidence))


def somewhere(evidence: Sequence[Evidence]) -> str:
    """For a claim about the best case: supported if one supports it, contradicted if all contradict it."""
    supporting, contradicting = counts(evidence)
    return _verdict(evidence, supporting > 0, contradicting == len(evidence))


def best_of_all(evidence: Sequence[Evidence]) -> str:
    """For one against all others: supported if all support it, contradicted if one contradicts it.

    Contradictions must already be at a level that takes their number into account.
    """
    supporting, contradicting = counts(evidence)
    return _verdict(evidence, supporting == len(evidence), contradicting > 0)


def _verdict(evidence: Sequence[Evidence], supported: bool, contradicted: bool) -> str:
    if not evidence:
        return NOT_TESTED
    return SUPPORTED if supported else CONTRADICTED if contradicted else INCONCLUSIVE


def counts(evidence: Sequence[Evidence]) -> tuple[int, int]:
    """How many support the claim, and how many contradict it."""
    answers = [each.supports for each in evidence]
    return answers.count(True), answers.count(False)


def in_words(value: Interval | None, write: Callable[[float], str]) -> str:
    """A value with its interval, or that it has none; a dash where there is neither."""
    if value is None:
        return DASH
    text = with_interval(value.value, value.low, value.high, write)
    return text if value.low is not None else f"{text} (no interval)"


def against_dense(results: Results, compared: Comparison, limit: float, relative: bool = False) -> Evidence:
    """Loss minus dense's, nats/token or over dense's loss: by curves and by seeds, which must agree."""
    where = power(compared.budget)
    seeds = best_difference(results, compared.method, REFERENCE, compared.budget)
    if compared.value is None or compared.dense_loss is None or seeds is None:
        return Evidence(f"{where}: {compared.why or 'not run with several seeds'}", None)
    curve = compared.value
    if relative:
        dense = results.best(REFERENCE, compared.budget)["loss"].mean()
        curve, seeds = curve.divided_by(compared.dense_loss), seeds.divided_by(float(dense))
    write = percent if relative else signed
    by_curves = curve.below(limit)
    agree = by_curves == below(results, compared.budget, [compared.method], [REFERENCE], seeds, limit)
    text = f"{where}: curves {in_words(curve, write)}, seeds {in_words(seeds, write)}"
    return Evidence(text, by_curves if agree else None)


def saved_compute(results: Results, fits: Fits, method: str) -> list[Evidence]:
    """FLOPs dense needs for the same loss: 1 / 0.6 times as many if 40 % are saved. Values and interval ends beyond
    dense's own optima are extrapolations: they are shown but do not count.
    """
    if method not in results.methods:
        return []
    equivalents = fits.equivalents.get(method, [])
    without = [budget for budget in results.budgets if budget not in {results.budget_of(e.flops) for e in equivalents}]
    found = [Evidence(f"{power(budget)}: no optimum on both sides", None) for budget in without]
    for each in equivalents:
        text = f"{power(each.flops)}: {in_words(each.times, times)}"
        under = each.measured.below(1 / (1 - _SAVED))
        supports = None if under is None or each.extrapolated else not under
        found.append(Evidence(f"{text} ({each.warning}, not counted)" if each.warning else text, supports))
    return found


def better_than_parts(results: Results) -> list[Evidence]:
    """MoDE minus MoE and minus MoD: better than both supports at a budget, worse than one contradicts."""
    if not results.modes or not set(PARTS) <= set(results.methods):
        return []
    mode, found = results.modes[0], []
    for budget in results.budgets:
        values = {other: best_difference(results, mode, other, budget) for other in PARTS}
        answers = {below(results, budget, [mode], [other], value) for other, value in values.items()}
        each = [f"minus {title(other)} {in_words(value, signed)}" for other, value in values.items() if value]
        if each:
            supports = False if False in answers else None if None in answers else True
            found.append(Evidence(f"{power(budget)}: {', '.join(each)}", supports))
    return found


def more_than_the_sum(results: Results) -> list[Evidence]:
    """MoDE's difference from dense minus the sum of MoE's and MoD's: at most 0 where gains add up."""
    found = []
    for mode, budget in ((mode, budget) for mode in results.modes[:1] for budget in results.budgets):
        value = sum_of_gains(results, mode, budget)
        if value is not None:
            answer = below(results, budget, [mode, REFERENCE], PARTS, value)
            found.append(Evidence(f"{power(budget)}: {in_words(value, signed)}", answer))
    return found


def ratio(matched: IsoLoss, value: Interval | None, at_most: float) -> Evidence:
    """Of a model with dense's best loss, over dense's."""
    where = power(matched.budget)
    if value is None:
        return Evidence(f"{where}: {matched.why or 'steps not timed'}", None)
    return Evidence(f"{where}: {in_words(value, times)}", value.below(at_most))


def within(budget: float, value: Interval | None, low: float, high: float) -> Evidence:
    """Of the method's best size, over dense's."""
    if value is None:
        return Evidence(f"{power(budget)}: no optimum inside the grid", None)
    inside: bool | None = None
    if value.low is not None and value.high is not None:
        inside = True if low <= value.low and value.high <= high else None
        inside = False if value.high < low or value.low > high else inside
    return Evidence(f"{power(budget)}: {in_words(value, times)}", inside)


def decoding(results: Results, method: str, at_least: float) -> list[Evidence]:
    """Every point of the decode study; supports if its whole interval is at least that multiple of dense's speed."""
    points = (results.decode.decode or {}).get(method, []) if results.decode else []
    found = []
    for point in sorted(points, key=lambda p: p.speedup_realised.median if p.speedup_realised else 0.0):
        if point.speedup_realised:
            speed = point.speedup_realised
            slower = Interval(-speed.median, -speed.high, -speed.low).below(-at_least)
            text = f"{times(speed.median)} ({times(speed.low)} to {times(speed.high)})"
            found.append(Evidence(f"{text} at batch {point.batch_size}, context {point.context}", slower))
    return found


def energy(results: Results, method: str) -> list[Evidence]:
    """Joules of the best shapes' whole training over dense's, budget by budget, where runs were metered."""
    found = []
    for budget in results.budgets:
        own, dense = (
            np.log(results.best(name, budget)["joules"].dropna().to_numpy(dtype=float)) for name in (method, REFERENCE)
        )
        if not len(own) or not len(dense):
            continue
        share = Interval(float(own.mean() - dense.mean()))
        degrees = len(own) + len(dense) - 2
        if min(len(own), len(dense)) > 1:
            pooled = math.sqrt((np.sum((own - own.mean()) ** 2) + np.sum((dense - dense.mean()) ** 2)) / degrees)
            share = Interval.from_stderr(share.value, pooled * math.sqrt(1 / len(own) + 1 / len(dense)), degrees)
        low, high = (math.exp(each) if each is not None else None for each in (share.low, share.high))
        value = Interval(math.exp(share.value), low, high)
        found.append(Evidence(f"{power(budget)}: {in_words(value, times)}", value.below(1.0)))
    return found
