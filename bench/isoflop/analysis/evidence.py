"""From intervals to a verdict.

Each 95 % interval agrees with a claim (all of it lies where the claim puts it), contradicts it (all of it lies
elsewhere), or neither. That a claim must agree everywhere to hold needs no correction for the number of intervals
(an intersection-union test, Berger 1982); that it must be contradicted by more than half to fail keeps one unlucky
interval from deciding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.formats import with_interval
from bench.isoflop.analysis.differences import SeedDifference
from bench.stats.parabolas import Estimate

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "cannot be told"


@dataclass(frozen=True)
class Evidence:
    """One interval, in words, and whether it speaks for the claim: True, False, or None for neither."""

    told: str
    speaks: bool | None


def everywhere(evidence: Sequence[Evidence]) -> tuple[str, str]:
    """What was measured, and the verdict: holds where all agree, does not where more than half contradict."""
    agree, contradict = _counts(evidence)
    if evidence and agree == len(evidence):
        return told(evidence), HOLDS
    return told(evidence), FAILS if 2 * contradict > len(evidence) else OPEN


def somewhere(evidence: Sequence[Evidence]) -> tuple[str, str]:
    """For a claim about the best case: holds where one agrees, does not where all contradict."""
    agree, contradict = _counts(evidence)
    if agree:
        return told(evidence), HOLDS
    return told(evidence), FAILS if evidence and contradict == len(evidence) else OPEN


def best_of_all(evidence: Sequence[Evidence]) -> tuple[str, str]:
    """For one thing against every other: holds where all agree, does not where one contradicts.

    Contradictions must already be at a level that takes their number into account.
    """
    agree, contradict = _counts(evidence)
    if evidence and agree == len(evidence):
        return told(evidence), HOLDS
    return told(evidence), FAILS if contradict else OPEN


def told(evidence: Sequence[Evidence]) -> str:
    """All of it in words, counted where there is more than one."""
    if not evidence:
        return "not measured"
    text = "; ".join(each.told for each in evidence)
    if len(evidence) == 1:
        return text
    agree, contradict = _counts(evidence)
    return f"{agree} of {len(evidence)} agree, {contradict} contradict: {text}"


def beyond(value: Estimate | SeedDifference, limit: float) -> bool | None:
    """Whether all of the interval is below `limit`; False: all of it is above; None: neither, or no interval."""
    if value.low is None or value.high is None:
        return None
    return True if value.high < limit else False if value.low > limit else None


def interval(value: Estimate | SeedDifference, write: Callable[[float], str]) -> str:
    """In words; without an interval, that there is none."""
    text = with_interval(value.value, value.low, value.high, write)
    return text if value.low is not None else f"{text} (no interval)"


def _counts(evidence: Sequence[Evidence]) -> tuple[int, int]:
    answers = [each.speaks for each in evidence]
    return answers.count(True), answers.count(False)
