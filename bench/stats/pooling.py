"""Several estimates of one difference as one: budgets of a study, and studies of a question.

Estimates need a standard error and degrees of freedom (`Interval.stderr`, `Interval.degrees`), and one unit. Pool
losses as shares of the dense loss where budgets have different losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.difference import Source, estimate, satterthwaite
from bench.stats.interval import Interval


@dataclass(frozen=True)
class Pooled:
    """The mean over studies, and how much studies differ by more than their own standard errors.

    tau: standard deviation between studies, in the unit of the effect. q, p: Cochran's test that tau is 0; None for
    one study.
    """

    effect: Interval
    tau: float = 0.0
    q: float | None = None
    p: float | None = None


def pool_budgets(budgets: Sequence[Interval], *shared: Source | None) -> Interval:
    """Mean of independent estimates of one value, such as the budgets of a study, with Welch-Satterthwaite interval.

    Budgets weigh the same: weights from the variances of three seeds would cost more than they gain, and an
    inverse-variance interval over five such budgets covers 92 % even with Meier's (1953) correction. shared: sources
    common to all budgets, such as the validation documents, which more budgets do not average out; leave them out of
    the budgets. n: the seeds of all budgets. Raises ValueError if a budget has no standard error.
    """
    number, sources = len(budgets), []
    for each in budgets:
        if each.stderr is None or not each.degrees:
            raise ValueError("every estimate to pool needs a standard error and degrees of freedom")
        sources.append(Source((each.stderr / number) ** 2, each.degrees))
    value = sum(each.value for each in budgets) / number
    return estimate(value, [*sources, *filter(None, shared)], sum(each.n or 0 for each in budgets), budgets[0].unit)


def pool_studies(studies: Sequence[Interval]) -> Pooled:
    """Random-effects mean of independent studies of one question.

    Between-study variance by Paule and Mandel (1982, J. Res. NBS 87, 377-385); t interval with k - 1 degrees of
    freedom by Hartung and Knapp (2001, Stat. Med. 20, 1771-1782). If studies agree by chance better than their standard
    errors allow, it is not narrower than the common-effect interval (Jackson et al. 2017, Stat. Med. 36, 3923-3934).
    One study is returned as it is. Raises ValueError if a study has no standard error.
    """
    if len(studies) == 1:
        return Pooled(studies[0])
    from scipy import special

    if not all(each.stderr and each.degrees for each in studies):
        raise ValueError("every study to pool needs a standard error above 0 and degrees of freedom")
    values = np.array([each.value for each in studies])
    variances = np.array([float(each.stderr or 0) ** 2 for each in studies])
    rest, q, tau2 = len(studies) - 1, _spread(values, variances), _paule_mandel(values, variances)
    weights = 1 / (variances + tau2)
    sources = [Source(_spread(values, variances + tau2) / rest / float(weights.sum()), rest)]
    if tau2 == 0.0:
        parts = zip(weights / weights.sum() ** 2, studies, strict=True)
        sources.append(satterthwaite([Source(float(part), each.degrees or 0.0) for part, each in parts]))
    mean = float(np.average(values, weights=weights))
    effects = [estimate(mean, [source], len(studies), "studies") for source in sources]
    widest = max(effects, key=lambda each: each.high or 0.0)
    return Pooled(widest, math.sqrt(tau2), q, float(special.chdtrc(rest, q)))


def _paule_mandel(values: np.ndarray, variances: np.ndarray) -> float:
    """The between-study variance at which Cochran's Q equals its expectation, k - 1; 0 if it is below without any."""
    from scipy import optimize

    def excess(tau2: float) -> float:
        return _spread(values, variances + tau2) - (len(values) - 1)

    if excess(0.0) <= 0:
        return 0.0
    most = float(values.var(ddof=1))  # Q falls with tau2 and is below k - 1 here
    return float(optimize.brentq(excess, 0.0, most))


def _spread(values: np.ndarray, variances: np.ndarray) -> float:
    """Cochran's Q: weighted squares about the weighted mean."""
    mean = np.average(values, weights=1 / variances)
    return float(np.sum((values - mean) ** 2 / variances))
