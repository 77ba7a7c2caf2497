"""Figures over held-out documents, and how far they would move with other documents.

Tokens of one document are alike, so what is independent are documents: the spread of a figure is that over leaving
out each document in turn (the jackknife, Efron and Stein 1981), and intervals and p are those of t with one degree of
freedom less than there are documents. Below five documents that says nothing, nor does it where all documents agree to
the bit (none of them has such a token): there is no interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

_FEWEST_DOCUMENTS = 5
_COVERAGE = 0.95
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Spread:
    """A figure with its 95 % interval and two-sided p; None where there are too few documents."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def over_documents(
    figure: Callable[[np.ndarray], float], documents: np.ndarray, least: float, most: float, biased: bool = False
) -> Spread:
    """The figure and its interval, no farther than `least` and `most`, between which all its values lie.

    figure: of how often each document counts (documents,), 1 or 0. documents: the number of each token's.
    biased: so by its nature where tokens are few; the jackknife's estimate of the bias is taken off (Quenouille 1956).
    """
    present = np.unique(documents)
    everyone = np.zeros(int(documents.max()) + 1)
    everyone[present] = 1.0
    value, n = figure(everyone), len(present)
    if n < _FEWEST_DOCUMENTS:
        return Spread(value)
    without = []
    for document in present:
        weights = everyone.copy()
        weights[document] = 0.0
        without.append(figure(weights))
    mean = float(np.mean(without))
    stderr = float(np.sqrt((n - 1) / n * np.sum((np.array(without) - mean) ** 2)))
    if not stderr > _NO_SPREAD:
        return Spread(value)
    if biased:
        value -= (n - 1) * (mean - value)
    half = float(stats.t.ppf((1 + _COVERAGE) / 2, n - 1)) * stderr
    p = float(2 * stats.t.sf(abs(value) / stderr, n - 1))
    value, low, high = (min(most, max(least, each)) for each in (value, value - half, value + half))
    return Spread(value, low, high, p)
