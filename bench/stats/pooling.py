"""Several estimates of one difference as one: budgets of a study, and studies of a question.

Estimates need a standard error and degrees of freedom (`Interval.stderr`, `Interval.degrees`), and one unit. Pool
losses as shares of the dense loss where budgets have different losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def pool_budgets(budgets: Sequence[Interval], *shared: Source) -> Interval:
    """Inverse-variance mean of independent estimates of the same value, such as the budgets of one study.

    The variance includes the price of weights from estimated variances (Meier 1953, Biometrics 9, 59-73); degrees of
    freedom are Satterthwaite's. shared: sources common to all budgets, such as the validation documents, which more
    budgets do not average out; leave them out of the budgets. Raises ValueError if a budget has no standard error.
    """
    values, variances = _numbers(budgets)
    degrees = np.array([each.degrees for each in budgets], dtype=float)
    share = (1 / variances) / np.sum(1 / variances)
    total = satterthwaite([Source(*each) for each in zip(share**2 * variances, degrees, strict=True)])
    price = 1 + 4 * float(np.sum(share * (1 - share) / degrees))
    sources = [replace(total, variance=price * total.variance), *shared]
    return estimate(float(share @ values), sources, sum(each.n or 0 for each in budgets), budgets[0].unit)


def pool_studies(studies: Sequence[Interval]) -> Pooled:
    """Random-effects mean of independent studies of one question.

    Between-study variance by Paule and Mandel (1982, J. Res. NBS 87, 377-385); t interval with k - 1 degrees of
    freedom by Hartung and Knapp (2001, Stat. Med. 20, 1771-1782), never narrower than the one with known variances
    (Röver, Knapp and Friede 2015). One study is returned as it is. Raises ValueError if a study has no standard error.
    """
    if len(studies) == 1:
        return Pooled(studies[0])
    from scipy import stats  # takes half a second

    values, variances = _numbers(studies)
    q, rest = _spread(values, variances), len(studies) - 1
    tau2 = _paule_mandel(values, variances)
    weights = 1 / (variances + tau2)
    scale = max(1.0, _spread(values, variances + tau2) / rest)
    effect = estimate(
        float(np.average(values, weights=weights)),
        [Source(scale / float(weights.sum()), rest)],
        len(studies),
        "studies",
    )
    return Pooled(effect, math.sqrt(tau2), q, float(stats.chi2.sf(q, rest)))


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


def _numbers(estimates: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Values and variances, (k,) each."""
    if not all(each.stderr and each.degrees for each in estimates):
        raise ValueError("every estimate to pool needs a standard error above 0 and degrees of freedom")
    return np.array([each.value for each in estimates]), np.array([float(each.stderr or 0) ** 2 for each in estimates])
