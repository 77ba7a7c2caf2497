"""The verdicts on a difference of losses, and the marks of a published claim: the only words for them.

One interval answers two questions. *Superiority*: does the 95 % interval exclude 0? *Equivalence*: does the 90 %
interval lie within plus and minus the smallest effect of interest (two one-sided 5 % tests, TOST, Schuirmann 1987)?
Equivalence comes first: a difference that is significant and shown to be smaller than the smallest effect of interest
is too small to matter, so the verdict is "equivalent".
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from bench.stats.difference import upper_tail
from bench.stats.interval import CONFIDENCE, Interval

SMALLEST_EFFECT = 0.01  # share of the dense loss: the smallest effect of interest
STRICTER_EFFECT = 0.005  # printed beside it
FEWEST_SEEDS = 3  # what a reader is advised to train


class Verdict(StrEnum):
    """A method against another: lower losses are better."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


class Mark(StrEnum):
    """What the evidence says of a published claim. Equivalent: the claimed difference is smaller than matters."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested"


def decide(difference: Interval, smallest_effect: float) -> Verdict:
    """The verdict on one difference whose units are seeds or more; `smallest_effect` is above 0 in its unit.

    Without a standard error over seeds (one seed, or an interval over the documents of one seed) it is inconclusive.
    """
    return decide_all([difference], [smallest_effect])[0]


def decide_all(differences: Sequence[Interval], smallest_effects: Sequence[float]) -> list[Verdict]:
    """Verdicts on one family of differences: both questions are tested at 5 % for the family together (Holm 1979)."""
    tested = [_tested(each) for each in differences]
    superior = holm([_superiority_p(each) if test else None for each, test in zip(differences, tested, strict=True)])
    pairs = zip(differences, smallest_effects, tested, strict=True)
    equivalent = holm([equivalence_p(each, effect) if test else None for each, effect, test in pairs])
    return [_verdict(*each) for each in zip(differences, superior, equivalent, strict=True)]


def equivalence_p(difference: Interval, smallest_effect: float) -> float:
    """p of the two one-sided tests: below 0.05 where the 90 % interval lies within plus and minus `smallest_effect`.

    The difference must have `stderr` and `degrees`.
    """
    assert difference.stderr is not None and difference.degrees is not None
    return upper_tail(smallest_effect - abs(difference.value), difference.stderr, difference.degrees)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979), in the order given; None is not a test and stays None."""
    adjusted = list(p_values)
    tests = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    running = 0.0
    for rank, (p, place) in enumerate(tests):
        running = max(running, min(1.0, p * (len(tests) - rank)))
        adjusted[place] = running
    return adjusted


def _tested(difference: Interval) -> bool:
    """Whether the difference can have a verdict: documents of one seed say nothing about other seeds."""
    return difference.unit != "documents" and difference.stderr is not None and difference.degrees is not None


def _superiority_p(difference: Interval) -> float:
    assert difference.stderr is not None and difference.degrees is not None
    return 2 * upper_tail(abs(difference.value), difference.stderr, difference.degrees)


def _verdict(difference: Interval, superior: float | None, equivalent: float | None) -> Verdict:
    if superior is None or equivalent is None:
        return Verdict.INCONCLUSIVE
    if equivalent < 1 - CONFIDENCE:
        return Verdict.EQUIVALENT
    if superior < 1 - CONFIDENCE:
        return Verdict.BETTER if difference.value < 0 else Verdict.WORSE
    return Verdict.INCONCLUSIVE
