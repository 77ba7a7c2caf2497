"""What a difference of two losses owes to which documents were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bench.isoflop.analysis.results import Results
from bench.stats.paired import paired_documents


@dataclass(frozen=True)
class DocumentSpread:
    """Standard error of the difference over held-out documents, nats a token; 0 where records do not tell it."""

    stderr: float
    documents: int

    def errors(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) to add to a difference, which comes first and has none, and its draws: t, documents - 1 degrees."""
        drawn = np.zeros(count)
        if self.stderr > 0.0:
            drawn[1:] = self.stderr * rng.standard_t(self.documents - 1, count - 1)
        return drawn


_UNKNOWN = DocumentSpread(0.0, 0)


def between_best(results: Results, method: str, other: str, budget: float) -> DocumentSpread:
    """Of the best shapes of two methods at a budget; it stands for that of minima nearby, which no run stands at."""
    own, against = results.best(method, budget), results.best(other, budget)
    return _UNKNOWN if own.empty or against.empty else between(results, [own], [against])


def between(results: Results, added: list[pd.DataFrame], taken: list[pd.DataFrame]) -> DocumentSpread:
    """Of a sum of losses minus another; each is of the first run, by seed, of a set of runs of one shape."""
    own, other = _together(results, added), _together(results, taken)
    paired = paired_documents(own, other) if own is not None and other is not None else None
    if paired is None or paired.high is None:
        return _UNKNOWN
    half = paired.high - paired.value
    n = paired.n or 0
    return DocumentSpread(half / float(stats.t.ppf(0.975, n - 1)), n)


def _together(results: Results, cells: list[pd.DataFrame]) -> pd.DataFrame | None:
    """Held-out documents with the nats of the first run of each cell added up; None where one has no such file."""
    frames = [results.files[runs.sort_values("seed")["id"].iloc[0]].documents for runs in cells]
    known = [frame[["document", "tokens", "nats"]] for frame in frames if frame is not None]
    if len(known) < len(frames):
        return None
    first = known[0]
    for frame in known[1:]:
        if not first[["document", "tokens"]].equals(frame[["document", "tokens"]]):
            return None
        first = first.assign(nats=first["nats"] + frame["nats"])
    return first
