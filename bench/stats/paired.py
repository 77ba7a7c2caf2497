"""How much a difference of losses would change with other validation documents of the same kind.

Losses are differenced document by document, which cancels how hard each document is. Clusters (a book, a speech;
without such a column each document is one) are the independent units, and large ones weigh more: with skewed lengths
24 documents act like 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.difference import Source
from bench.stats.interval import Interval

if TYPE_CHECKING:  # slow to import, and a training run needs neither pandas nor scipy
    import pandas as pd

Cell = Sequence["pd.DataFrame | None"]  # the documents of one method's runs, one frame per seed

FEWEST_DEGREES = 4.0  # five documents of equal weight: with fewer an interval over documents is open


def document_source(added: Sequence[Cell], taken: Sequence[Cell]) -> Source | None:
    """The variance that validation documents add to `seed_difference` of the same cells, (nats/token)^2.

    Frames have `document`, `tokens`, `nats` (the document's total) and perhaps `cluster`; nats are averaged over the
    seeds of a cell. None if a run has no frame, documents differ, or all are one cluster.
    """
    totals = _totals(added, taken)
    return None if totals is None or len(totals[0]) < 2 else ratio_source(*totals)


def document_interval(added: Sequence[Cell], taken: Sequence[Cell]) -> Interval | None:
    """The difference over all documents, with the interval for other documents and the *same* training runs.

    It is information only: no verdict follows from it, because it does not know other seeds. Open at both ends with
    fewer than `FEWEST_DEGREES` effective degrees of freedom. n counts clusters. None if a run has no frame or documents
    differ.
    """
    totals = _totals(added, taken)
    if totals is None:
        return None
    differences, tokens = totals
    value, n = float(differences.sum() / tokens.sum()), len(tokens)
    source = ratio_source(differences, tokens) if n > 1 else Source(0.0, 0.0)
    if source.degrees < FEWEST_DEGREES:
        return Interval(value, -math.inf, math.inf, n=n, unit="documents")
    own = Interval.from_stderr(value, math.sqrt(source.variance), source.degrees)
    return Interval(value, own.low, own.high, n=n, unit="documents")  # without what a test or pooling needs


def ratio_source(totals: np.ndarray, sizes: np.ndarray) -> Source:
    """Variance of sum(totals) / sum(sizes) over two independent units or more, both (n,), by leaving out each in turn.

    The sum of the squared moves from the full estimate (HC3 of MacKinnon and White 1985), which does not understate
    the part of large units as the ratio estimator's formula does (Cochran 1977, eq. 6.9).
    """
    whole = float(sizes.sum())
    residuals = totals - float(totals.sum()) / whole * sizes
    return Source(float(np.sum((residuals / (whole - sizes)) ** 2)), effective_degrees(sizes))


def effective_degrees(sizes: np.ndarray) -> float:
    """Degrees of freedom of units that weigh by size: one less than the number of equal units that weigh as much.

    (sum t)^2 / sum t^2 - 1 (Kish 1965, Survey Sampling, section 11.7).
    """
    return float(sizes.sum()) ** 2 / float(np.sum(np.square(sizes, dtype=float))) - 1


def ratio_stderr(totals: np.ndarray, sizes: np.ndarray) -> float | None:
    """Standard error of sum(totals) / sum(sizes) over units, both (n,), by `ratio_source`; None for a single unit."""
    return math.sqrt(ratio_source(totals, sizes).variance) if len(totals) > 1 else None


def _totals(added: Sequence[Cell], taken: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray] | None:
    """Differences of nats, and tokens, of each cluster, (clusters,) each; None if frames are missing or differ."""
    cells = [(1 / len(cell), cell) for cell in added] + [(-1 / len(cell), cell) for cell in taken]
    runs = [(weight, frame) for weight, cell in cells for frame in cell]
    frames = [(weight, frame.sort_values("document")) for weight, frame in runs if frame is not None]
    if len(frames) < len(runs):
        return None
    first = frames[0][1]
    documents, tokens = first["document"].to_numpy(), first["tokens"].to_numpy(dtype=float)
    differences = np.zeros(len(tokens))
    for weight, frame in frames:
        if not (np.array_equal(frame["document"], documents) and np.array_equal(frame["tokens"], tokens)):
            return None
        differences += weight * frame["nats"].to_numpy(dtype=float)
    _, cluster = np.unique(first.get("cluster", documents), return_inverse=True)
    return np.bincount(cluster, differences), np.bincount(cluster, tokens)
