"""Step changes in a series: where its level moved and stayed.

A series without noise (one that repeats to the bit) steps wherever it changes and stays changed for two points. In
others a change in mean is found by PELT on the squared error (Killick et al. 2012, arXiv 1101.1438; `ruptures`), in
units of the noise, with 4 log n a change: twice the usual penalty (Yao 1988), for a page of hundreds of series is
looked at by habit. Noise is taken from differences of neighbours, which a step does not inflate, and points beyond
four of its standard deviations are pulled in, so that one outlier is no step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SHORTEST = 4  # points on either side of a step, in a series with noise
_WINDOW = 1000  # points looked at together: the search is quadratic
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
    """Starts of runs of equal values; a run of one is an outlier, but for the last, which may become a step."""
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
    from ruptures import KernelCPD  # slow to import, and not needed where nothing is noisy

    search = KernelCPD(kernel="linear", min_size=_SHORTEST).fit(window.reshape(-1, 1))
    return search.predict(pen=4 * math.log(len(window)))[:-1]


def _pulled_in(series: np.ndarray, noise: float) -> np.ndarray:
    """Each point to within four standard deviations of the median of the nine around it."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(series, 4, mode="edge"), 9)
    middle = np.median(around, axis=1)
    return np.clip(series, middle - 4 * noise, middle + 4 * noise)
