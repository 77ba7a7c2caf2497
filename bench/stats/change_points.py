"""Step changes in a series: where its level changed and stayed.

A series without noise (one that repeats bit for bit) has a step wherever it changes for at least two points. In
others, changes in mean are the optimal partition by squared error (Jackson et al. 2005, arXiv math/0309285), in units
of the noise. A change costs 4 log n, twice the usual penalty (Yao 1988), because a page shows hundreds of series.
Noise is taken from differences of neighbours, which a step does not inflate. Points beyond four of its standard
deviations are pulled in, so that a single outlier is not a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SHORTEST = 4  # points on either side of a step, in a series with noise
_WINDOW = 1000  # points searched together: the search is quadratic
_MAD = 0.6745  # of a standard normal


@dataclass(frozen=True)
class Step:
    """At `index` the level went from `before` to `after`: medians of the points between steps."""

    index: int
    before: float
    after: float


def find_steps(values: Sequence[float]) -> list[Step]:
    """The steps of a series of finite values of one machine, in time order."""
    series = np.asarray(values, dtype=float)
    if len(series) < 2 or series.min() == series.max():
        return []
    noise = float(np.median(np.abs(np.diff(series)))) / (_MAD * math.sqrt(2))
    noise *= 1 + 5 / len(series)  # the median of a few differences is often far too low
    at = _exact(series) if noise == 0.0 else _noisy(series, noise)
    edges = [0, *at, len(series)]
    levels = [float(np.median(series[a:b])) for a, b in zip(edges, edges[1:], strict=False)]
    return [Step(i, a, b) for i, a, b in zip(at, levels, levels[1:], strict=False) if a != b]


def _exact(series: np.ndarray) -> list[int]:
    """Starts of runs of equal values; a run of one is an outlier, except the last, which may become a step."""
    starts = [0, *(np.flatnonzero(np.diff(series)) + 1).tolist()]
    lengths = np.diff([*starts, len(series)])
    kept = [start for start, length in zip(starts, lengths, strict=True) if length > 1 or start == len(series) - 1]
    levels = [series[start] for start in kept]
    return [start for start, level, last in zip(kept[1:], levels[1:], levels, strict=False) if level != last]


def _noisy(series: np.ndarray, noise: float) -> list[int]:
    if len(series) < 2 * _SHORTEST:
        return []
    pulled = _pulled_in(series, noise) / noise
    found: list[int] = []
    for start in range(0, max(1, len(series) - _WINDOW // 2), _WINDOW // 2):
        window = pulled[start : start + _WINDOW]
        last = start + _WINDOW >= len(series)
        trusted = range(0 if start == 0 else _WINDOW // 4, len(window) if last else 3 * _WINDOW // 4)
        found += [start + at for at in _changes(window) if at in trusted]
        if last:
            break
    return sorted(set(found))


def _changes(window: np.ndarray) -> list[int]:
    """Starts of the segments, after the first, that minimise squared error + 4 log n per segment (exact, O(n^2))."""
    size = len(window)
    penalty = 4 * math.log(size)
    sums = np.concatenate([[0.0], np.cumsum(window - window.mean())])
    inverse_lengths = 1 / np.arange(size, 0, -1)
    cost = np.full(size + 1, np.inf)  # of the best partition of the points before each index, less their squares
    cost[0] = 0.0
    last_start = np.zeros(size + 1, dtype=int)
    for end in range(_SHORTEST, size + 1):
        starts = end - _SHORTEST + 1
        totals = cost[:starts] - (sums[end] - sums[:starts]) ** 2 * inverse_lengths[size - end :][:starts]
        last_start[end] = totals.argmin()
        cost[end] = totals[last_start[end]] + penalty
    found: list[int] = []
    start = int(last_start[size])
    while start > 0:
        found.append(start)
        start = int(last_start[start])
    return found[::-1]


def _pulled_in(series: np.ndarray, noise: float) -> np.ndarray:
    """Each point to within four standard deviations of the median of the nine around it."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(series, 4, mode="edge"), 9)
    middle = np.median(around, axis=1)
    return np.clip(series, middle - 4 * noise, middle + 4 * noise)
