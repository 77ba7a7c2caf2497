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

Cell = Sequence["pd.DataFrame"]  # the documents of one method's runs, one frame per seed

FEWEST_DEGREES = 5.0  # with fewer an interval over documents is open: its coverage is unknown


def document_source(added: Sequence[Cell], taken: Sequence[Cell]) -> Source | None:
    """The variance that validation documents add to `seed_difference` of the same cells, (nats/token)².

    Frames have `document`, `tokens`, `nats` (the document's total) and perhaps `cluster`; nats are averaged over the
    seeds of a cell. None if the documents differ or are of one cluster.
    """
    totals = _totals(added, taken)
    return None if totals is None else ratio_source(*totals)


def document_interval(added: Sequence[Cell], taken: Sequence[Cell]) -> Interval | None:
    """The difference over all documents, with the interval for other documents and the *same* training runs.

    It is information only: no verdict follows from it, because it does not know other seeds. Open at both ends with
    fewer than `FEWEST_DEGREES` effective degrees of freedom. None as for `document_source`.
    """
    totals = _totals(added, taken)
    if totals is None:
        return None
    differences, tokens = totals
    value, source = float(differences.sum() / tokens.sum()), ratio_source(differences, tokens)
    n = len(tokens)
    if source.degrees < FEWEST_DEGREES:
        return Interval(value, -math.inf, math.inf, n=n, unit="documents")
    own = Interval.from_stderr(value, math.sqrt(source.variance), source.degrees)
    return Interval(value, own.low, own.high, n=n, unit="documents")


def ratio_source(totals: np.ndarray, sizes: np.ndarray) -> Source:
    """Variance of sum(totals) / sum(sizes) over independent units, both (n,), by leaving out each in turn.

    The jackknife about the full estimate (CV3 of MacKinnon and White 1985), which does not understate the part of
    large units as the ratio estimator's formula does. Degrees of freedom: the number of equal units that would weigh
    as much, less one, (sum t)^2 / sum t^2 - 1.
    """
    n, whole = len(totals), float(sizes.sum())
    residuals = totals - float(totals.sum()) / whole * sizes
    moves = residuals / (whole - sizes)  # of the ratio, where the unit is left out
    return Source((n - 1) / n * float(np.sum(moves**2)), whole**2 / float(np.sum(sizes**2)) - 1)


def ratio_stderr(totals: np.ndarray, sizes: np.ndarray) -> float | None:
    """Standard error of sum(totals) / sum(sizes) over units, both (n,), by `ratio_source`; None for a single unit."""
    return math.sqrt(ratio_source(totals, sizes).variance) if len(totals) > 1 else None


def _totals(added: Sequence[Cell], taken: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray] | None:
    """Differences of nats and tokens of each cluster, (clusters,) each; None if documents differ or are one cluster."""
    first = added[0][0].sort_values("document")
    keys, tokens = first["document"].to_numpy(), first["tokens"].to_numpy(dtype=float)
    differences = np.zeros(len(tokens))
    for sign, cells in ((1, added), (-1, taken)):
        for cell in cells:
            for frame in cell:
                own = frame.sort_values("document")
                if not (np.array_equal(own["document"], keys) and np.array_equal(own["tokens"], tokens)):
                    return None
                differences += sign * own["nats"].to_numpy(dtype=float) / len(cell)
    clusters = first["cluster"].to_numpy() if "cluster" in first else keys
    _, place = np.unique(clusters, return_inverse=True)
    if place.max() < 1:
        return None
    return np.bincount(place, differences), np.bincount(place, tokens)
