"""Figures over validation documents, and how much they would change with other documents.

Tokens of one document are alike, so documents are the independent units. The standard error comes from leaving out
each document in turn (the jackknife, Efron and Stein 1981). Intervals and p are those of Student's t with the degrees
of freedom of documents that weigh by their tokens. There is no interval with fewer than four, or if all documents agree
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.stats.difference import upper_tail
from bench.stats.interval import Interval
from bench.stats.paired import FEWEST_DEGREES, effective_degrees

_NO_SPREAD = 1e-12


def over_documents(
    figure: Callable[[np.ndarray], float], documents: np.ndarray, least: float, most: float, biased: bool = False
) -> Interval:
    """The figure with its interval and p, clipped to its possible values, `least` to `most`.

    figure: takes how often each document counts, (documents,), 1 or 0. documents: each token's document, (tokens,).
    biased: the figure is biased if tokens are few; the jackknife's bias estimate is subtracted (Quenouille 1956).
    """
    tokens = np.bincount(documents)
    present = np.flatnonzero(tokens)
    everyone = np.where(tokens > 0, 1.0, 0.0)
    value, n, degrees = figure(everyone), len(present), effective_degrees(tokens)
    plain = Interval(value, n=n, unit="documents")
    if degrees < FEWEST_DEGREES:
        return plain
    without = []
    for document in present:
        weights = everyone.copy()
        weights[document] = 0.0
        without.append(figure(weights))
    mean = float(np.mean(without))
    stderr = float(np.sqrt(np.sum((np.array(without) - mean) ** 2)))
    if not stderr > _NO_SPREAD:
        return plain
    if biased:
        value -= (n - 1) * (mean - value)
    own = Interval.from_stderr(value, stderr, degrees)
    p = 2 * upper_tail(abs(value), stderr, degrees)
    value, low, high = (min(most, max(least, each)) for each in (value, own.low, own.high) if each is not None)
    return replace(plain, value=value, low=low, high=high, p=p)
