"""From intervals to a mark, and the evidence on losses and costs.

Evidence supports a claim (all of its interval lies where the claim puts it), contradicts it (all of it lies elsewhere),
shows that the claimed difference is too small to matter, or is inconclusive. A claim that must be supported everywhere
needs no correction for the number of intervals (an intersection-union test, Berger 1982). More than half must
contradict it, so that one unlucky interval does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.formats import DASH, percent, power, signed, times, with_interval
from bench.isoflop.analysis.differences import PARTS, bounded, pooled, pooled_budgets, within_bounds
from bench.isoflop.analysis.iso_loss import IsoLoss
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.analysis.verdicts import Against, dense_loss
from bench.stats.fits import Fits
from bench.stats.interval import Interval
from bench.stats.verdict import SMALLEST_EFFECT, Mark, Verdict, decide

_SAVED = 0.4
_MARKS = {
    Verdict.BETTER: Mark.SUPPORTED,
    Verdict.WORSE: Mark.CONTRADICTED,
    Verdict.EQUIVALENT: Mark.EQUIVALENT,
    Verdict.INCONCLUSIVE: Mark.INCONCLUSIVE,
}


@dataclass(frozen=True)
class Evidence:
    """One interval, in words, and what it says of the claim.

    value: that interval, None if there is none; limits: where the claim draws its line on the same scale.
    """

    text: str
    mark: Mark
    value: Interval | None = None
    limits: tuple[float, ...] = (0.0,)


def if_better(text: str, verdict: Verdict, value: Interval) -> Evidence:
    """For a claim that one loss is lower than another; `value`: the first minus the second."""
    return Evidence(text, _MARKS[verdict], value)


def if_true(text: str, answer: bool | None, value: Interval | None, *limits: float) -> Evidence:
    """For a claim that an interval lies on one side of a limit, or between two; None: on neither."""
    mark = {True: Mark.SUPPORTED, False: Mark.CONTRADICTED, None: Mark.INCONCLUSIVE}[answer]
    return Evidence(text, mark, value, limits)


def everywhere(evidence: Sequence[Evidence]) -> Mark:
    """Supported if all support it, contradicted if more than half contradict it."""
    return _mark(evidence, 2 * counts(evidence)[1] > len(evidence))


def of_all(evidence: Sequence[Evidence]) -> Mark:
    """For a claim that joins several: supported if all support it, contradicted if one contradicts it.

    Contradictions must already be at a level that takes their number into account.
    """
    return _mark(evidence, counts(evidence)[1] > 0)


def _mark(evidence: Sequence[Evidence], contradicted: bool) -> Mark:
    """Equivalent: all support it, but for differences that are too small to matter."""
    marks = {each.mark for each in evidence}
    if not evidence:
        return Mark.NOT_TESTED
    if contradicted:
        return Mark.CONTRADICTED
    if marks == {Mark.SUPPORTED}:
        return Mark.SUPPORTED
    return Mark.EQUIVALENT if marks <= {Mark.SUPPORTED, Mark.EQUIVALENT} else Mark.INCONCLUSIVE


def counts(evidence: Sequence[Evidence]) -> tuple[int, int]:
    """How many support the claim, and how many contradict it."""
    marks = [each.mark for each in evidence]
    return marks.count(Mark.SUPPORTED), marks.count(Mark.CONTRADICTED)


def in_words(value: Interval | None, write: Callable[[float], str]) -> str:
    """A value with its interval, or that it has none; a dash where there is neither."""
    if value is None:
        return DASH
    text = with_interval(value.value, value.low, value.high, write)
    return text if value.low is not None else f"{text} (no interval)"


def better(against: Against | None) -> list[Evidence]:
    """The page's verdict on a method against dense."""
    if against is None:
        return []
    return [if_better(in_words(against.difference, signed), against.verdict, against.difference)]


def better_by(against: Against | None, share: float) -> list[Evidence]:
    """Whether the loss is lower than dense's by `share` of it, or more."""
    if against is None:
        return []
    value = against.difference.divided_by(against.dense_loss)
    answer = value.below(-share)
    settled = not against.bounded or answer is True and against.bounded == [against.method]
    return [if_true(in_words(value, lambda v: percent(v, 1)), answer if settled else None, value, -share)]


def saved_compute(results: Results, fits: Fits, method: str) -> list[Evidence]:
    """FLOPs dense needs for the same loss: 1 / 0.6 times as many if 40 % are saved. Values and interval ends beyond
    dense's own optima are extrapolations: they are shown but do not count.
    """
    if method not in results.methods:
        return []
    equivalents = fits.equivalents.get(method, [])
    without = [budget for budget in results.budgets if budget not in {results.budget_of(e.flops) for e in equivalents}]
    needed = 1 / (1 - _SAVED)
    found = [if_true(f"{power(budget)}: no optimum on both sides", None, None, needed) for budget in without]
    for each in equivalents:
        text = f"{power(each.flops)}: {in_words(each.times, times)}"
        under = each.measured.below(needed)
        supports = None if under is None or each.extrapolated else not under
        warned = f"{text} ({each.warning}, not counted)" if each.warning else text
        found.append(if_true(warned, supports, each.times, needed))
    return found


def better_than_parts(results: Results) -> list[Evidence]:
    """MoDE minus MoE and minus MoD, pooled over budgets."""
    found = []
    for part in PARTS if results.modes and set(PARTS) <= set(results.methods) else ():
        found += _pooled(results, results.modes[:1], [part], f"minus {title(part)}")
    return found


def more_than_the_sum(results: Results) -> list[Evidence]:
    """MoDE's difference from dense minus the sum of MoE's and MoD's, pooled: below 0 it gains more than both."""
    if not results.modes or not set(PARTS) <= set(results.methods):
        return []
    return _pooled(results, [results.modes[0], REFERENCE], PARTS, "minus the sum")


def _pooled(results: Results, added: Sequence[str], taken: Sequence[str], name: str) -> list[Evidence]:
    value, budgets = pooled(results, added, taken), pooled_budgets(results, [*added, *taken])
    if value is None:
        return []
    verdict = decide(value, SMALLEST_EFFECT * dense_loss(results, budgets))
    ends = (bounded(results, side, budgets) for side in (added, taken))
    return [if_better(f"{name} {in_words(value, signed)}", within_bounds(verdict, *ends), value)]


def ratio(matched: IsoLoss, value: Interval | None, at_most: float) -> Evidence:
    """Of a model with dense's best loss, over dense's."""
    where = power(matched.budget)
    if value is None:
        return if_true(f"{where}: {matched.why or 'steps not timed'}", None, None, at_most)
    return if_true(f"{where}: {in_words(value, times)}", value.below(at_most), value, at_most)


def within(budget: float, value: Interval | None, low: float, high: float) -> Evidence:
    """Of the method's best size, over dense's."""
    if value is None:
        return if_true(f"{power(budget)}: no optimum inside the grid", None, None, low, high)
    inside: bool | None = None
    if value.low is not None and value.high is not None:
        inside = True if low <= value.low and value.high <= high else None
        inside = False if value.high < low or value.low > high else inside
    return if_true(f"{power(budget)}: {in_words(value, times)}", inside, value, low, high)


def decoding(results: Results, method: str, at_least: float) -> list[Evidence]:
    """Every point of the decode study; supports if its whole interval is at least that multiple of dense's speed."""
    points = (results.decode.decode or {}).get(method, []) if results.decode else []
    found = []
    for point in sorted(points, key=lambda p: (p.batch_size, p.context)):
        if point.speedup_realised:
            speed = point.speedup_realised
            slower = Interval(-speed.median, -speed.high, -speed.low).below(-at_least)
            text = f"{times(speed.median)} ({times(speed.low)} to {times(speed.high)})"
            at = f"batch {point.batch_size}, context {point.context}"
            value = Interval(speed.median, speed.low, speed.high)
            found.append(if_true(f"{at}: {text}", slower, value, at_least))
    return found


def where(evidence: Sequence[Evidence]) -> str:
    """The settings of `decoding` that support, and those that contradict: batch size and its contexts."""
    return "; ".join(
        f"{sum(each.mark == mark for each in evidence)} of {len(evidence)} {verb}{_settings(evidence, mark)}"
        for mark, verb in ((Mark.SUPPORTED, "support"), (Mark.CONTRADICTED, "contradict"))
    )


def _settings(evidence: Sequence[Evidence], mark: Mark) -> str:
    contexts: dict[str, list[str]] = {}
    for batch, context in (each.text.split(":")[0].split(", ") for each in evidence if each.mark == mark):
        contexts.setdefault(batch, []).append(context.removeprefix("context "))
    listed = "; ".join(f"{batch} at context {', '.join(each)}" for batch, each in contexts.items())
    return f" ({listed})" if listed else ""


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
            sd = math.sqrt((np.sum((own - own.mean()) ** 2) + np.sum((dense - dense.mean()) ** 2)) / degrees)
            share = Interval.from_stderr(share.value, sd * math.sqrt(1 / len(own) + 1 / len(dense)), degrees)
        low, high = (math.exp(each) if each is not None else None for each in (share.low, share.high))
        value = Interval(math.exp(share.value), low, high)
        found.append(if_true(f"{power(budget)}: {in_words(value, times)}", value.below(1.0), value, 1.0))
    return found
