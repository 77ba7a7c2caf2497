"""Differences between shapes that were run with several seeds, with intervals over seeds and held-out documents.

Which shape is best was settled on seed 0, and the best of several is lucky as often as it is good: its loss on that
seed flatters it. So differences are those of the other seeds, which the choice did not see. The spread over seeds is
pooled over all of them, for three seeds of one shape say too little about it: over the best shapes of all methods at
the budget, or for a control over all that was run of the two methods. Pairing by seed does not help where methods draw
different numbers from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from bench.isoflop.analysis.documents import between
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.paired import CONFIDENCE, detectable_difference
from bench.stats.parabolas import Estimate

_CELL = ["method", "capacity", "router", "causal", "n_layers", "d_model"]


@dataclass(frozen=True)
class SeedDifference:
    """Mean loss of one shape minus that of another, nats a token, on fresh seeds, with its 95 % interval.

    every: the same over all seeds, the one of the choice among them; detectable: found with 80 % power. Where a shape
    has no fresh seed the value is that of every seed, and there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    detectable: float | None
    every: Estimate

    def over(self, whole: float) -> SeedDifference:
        """As a share of something above 0 that is known."""
        low, high, detectable = (
            end / whole if end is not None else None for end in (self.low, self.high, self.detectable)
        )
        return SeedDifference(self.value / whole, low, high, detectable, self.every.over(whole))


def best_difference(results: Results, method: str, other: str, budget: float) -> SeedDifference | None:
    """Between the best shapes of two methods at a budget; None where one has not been run."""
    return difference(results, results.best(method, budget), results.best(other, budget))


def difference(
    results: Results, own: pd.DataFrame, other: pd.DataFrame, confidence: float = CONFIDENCE
) -> SeedDifference | None:
    """Between two sets of runs, each of one shape and at the same budget."""
    return _difference(results, [own], [other], confidence)


def sum_of_gains(results: Results, mode: str, budget: float) -> SeedDifference | None:
    """(MoDE - dense) - (MoE - dense) - (MoD - dense), of the best shapes: above 0 its gain is less than their sum.

    Twice dense's runs are in the sum of the parts and once in MoDE's, so that once is left.
    """
    added, taken = ([results.best(name, budget) for name in names] for names in ((mode, REFERENCE), ("moe", "mod")))
    return _difference(results, added, taken, CONFIDENCE)


def _difference(
    results: Results, added: list[pd.DataFrame], taken: list[pd.DataFrame], confidence: float
) -> SeedDifference | None:
    """Mean losses of the first sets of runs minus those of the others; None where one is empty."""
    if any(runs.empty for runs in (*added, *taken)):
        return None
    sd, degrees = seed_spread(_like(results, [*added, *taken]))
    every, _ = _estimate(results, added, taken, sd, degrees, confidence)
    added, taken = ([runs[runs["stage"] != "grid"] for runs in side] for side in (added, taken))
    if any(runs.empty for runs in (*added, *taken)):
        return SeedDifference(every.value, None, None, None, every)
    own, stderr = _estimate(results, added, taken, sd, degrees, confidence)
    return SeedDifference(
        own.value, own.low, own.high, detectable_difference(stderr, degrees) if degrees else None, every
    )


def _estimate(
    results: Results, added: list[pd.DataFrame], taken: list[pd.DataFrame], sd: float, degrees: int, confidence: float
) -> tuple[Estimate, float]:
    """The difference with its interval, and its standard error: over seeds, and over documents."""
    value = sum(float(runs["loss"].mean()) for runs in added) - sum(float(runs["loss"].mean()) for runs in taken)
    if not degrees:
        return Estimate(value), 0.0
    over_seeds = sd * math.sqrt(sum(1 / len(runs) for runs in (*added, *taken)))
    stderr = math.hypot(over_seeds, between(results, added, taken).stderr)
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * stderr
    return Estimate(value, value - half, value + half), stderr


def _like(results: Results, cells: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The runs whose spread over seeds is taken for that of `cells`."""
    budget = cells[0]["budget"].iloc[0]
    runs = results.runs[(results.runs["budget"] == budget) & (results.runs["stage"] != "rates")]
    if any("controls" in set(cell["stage"]) for cell in cells):
        return runs[runs["method"].isin([cell["method"].iloc[0] for cell in cells])]
    return runs[runs["stage"] != "controls"]


def seed_spread(runs: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over the shapes and settings in `runs`, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for _, cell in runs.groupby(_CELL, dropna=False):
        losses = cell.drop_duplicates("seed")["loss"].to_numpy(dtype=float)
        squares += float(((losses - losses.mean()) ** 2).sum())
        degrees += len(losses) - 1
    return (math.sqrt(squares / degrees), degrees) if degrees else (0.0, 0)
