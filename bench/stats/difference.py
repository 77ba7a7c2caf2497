"""A difference of losses with the variance of everything that could have come out otherwise.

Training seeds are the units: without two of them on each side there is no interval. Other sources (the choice of
validation documents, the tuning of the learning rate) add their variance; the degrees of freedom of the sum are
Satterthwaite's. Differences are method minus dense, in nats/token: below 0 the method is better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.stats.interval import CONFIDENCE, Interval

POWER = 0.80


@dataclass(frozen=True)
class Source:
    """One independent source of the variance of an estimate; degrees of freedom are infinite if it is known."""

    variance: float
    degrees: float = math.inf


def seed_difference(
    added: Sequence[Sequence[float]], taken: Sequence[Sequence[float]], *others: Source | None
) -> Interval:  # fmt: skip
    """Sum of the means of `added` minus that of `taken`, each the losses of one method over its seeds.

    Welch's t interval (Welch 1947, for any sum of means). Runs are not paired by seed: losses of two methods with the
    same seed do not correlate (docs/concepts/statistics.md), and pairing would halve the degrees of freedom.
    others: further sources, such as `document_source`, or None for one that is unknown. n: the fewest seeds of a
    method; with one there is no interval, whatever the other sources.
    """
    cells = [*added, *taken]
    value = sum(map(statistics.fmean, added)) - sum(map(statistics.fmean, taken))
    seeds = min(map(len, cells))
    if seeds < 2:
        return Interval(value, n=seeds, unit="seeds")
    return estimate(value, [*map(of_mean, cells), *filter(None, others)], seeds, "seeds")


def of_mean(losses: Sequence[float]) -> Source:
    """The variance of the mean of two losses or more, over seeds."""
    return Source(statistics.variance(losses) / len(losses), len(losses) - 1)


def estimate(value: float, sources: Sequence[Source], n: int | None = None, unit: str = "") -> Interval:
    """t interval, p and minimum detectable effect of a value whose variance is the sum of `sources`."""
    total = satterthwaite(sources)
    stderr = math.sqrt(total.variance)
    own = Interval.from_stderr(value, stderr, total.degrees)
    detectable = minimum_detectable_effect(stderr, total.degrees)
    p = 2 * upper_tail(abs(value), stderr, total.degrees)
    return replace(own, minimum_detectable=detectable, p=min(1.0, p), n=n, unit=unit)


def upper_tail(value: float, stderr: float, degrees: float) -> float:
    """Probability that an estimate of 0 with this standard error is above `value` (Student's t)."""
    from scipy import special

    if stderr == 0.0:
        return float(value <= 0.0)
    return float(special.stdtr(degrees, -value / stderr))


def satterthwaite(sources: Sequence[Source]) -> Source:
    """The sum of independent sources, with its effective degrees of freedom (Satterthwaite 1946)."""
    variance = sum(each.variance for each in sources)
    uncertainty = sum(each.variance**2 / each.degrees for each in sources)
    return Source(variance, variance**2 / uncertainty if uncertainty else math.inf)


def minimum_detectable_effect(stderr: float, degrees: float) -> float:
    """The true difference that a two-sided 5 % t test finds with 80 % power, in the unit of `stderr`.

    Exact, by the noncentral t distribution, with the standard error taken as the true one
    (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., chapter 2).
    """
    from scipy import special

    critical = special.stdtrit(degrees, (1 + CONFIDENCE) / 2)
    return stderr * float(special.nctdtrinc(degrees, 1 - POWER, critical))  # the other tail's share is below 1e-4
