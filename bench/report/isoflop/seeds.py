"""Differences between shapes that were run with several seeds, with intervals over seeds and held-out documents.

The spread over seeds is pooled, for three seeds of one shape say too little about it: over the best shapes of all
methods at the budget, or for a control over all that was run of the two methods. Pairing by seed does not help where
methods draw different numbers from it. Which shape is
best was settled on seed 0, which is counted in, too; `fresh` leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bench.report.estimate import CONFIDENCE, detectable_difference, paired_documents
from bench.report.isoflop.results import REFERENCE, Results

_CELL = ["method", "capacity", "router", "causal", "n_layers", "d_model"]


@dataclass(frozen=True)
class SeedDifference:
    """Mean loss of one shape minus that of another, nats a token, with its 95 % interval.

    fresh: the same without seed 0, on which shapes were chosen; detectable: found with 80 % power.
    """

    value: float
    low: float | None
    high: float | None
    detectable: float | None
    fresh: float | None


def best_difference(results: Results, method: str, other: str, budget: float) -> SeedDifference | None:
    """Between the best shapes of two methods at a budget; None where one has not been run."""
    return difference(results, results.best(method, budget), results.best(other, budget))


def difference(
    results: Results, own: pd.DataFrame, other: pd.DataFrame, confidence: float = CONFIDENCE
) -> SeedDifference | None:
    """Between two sets of runs, each of one shape and at the same budget."""
    if own.empty or other.empty:
        return None
    value = float(own["loss"].mean() - other["loss"].mean())
    without = [runs.loc[runs["seed"] > 0, "loss"] for runs in (own, other)]
    fresh = None if any(each.empty for each in without) else float(without[0].mean() - without[1].mean())
    sd, degrees = seed_spread(_like(results, own, other))
    if not degrees:
        return SeedDifference(value, None, None, None, fresh)
    stderr = math.hypot(sd * math.sqrt(1 / len(own) + 1 / len(other)), documents_stderr(results, own, other))
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * stderr
    return SeedDifference(value, value - half, value + half, detectable_difference(stderr, degrees), fresh)


def sum_of_gains(results: Results, mode: str, budget: float) -> SeedDifference | None:
    """(MoDE - dense) - (MoE - dense) - (MoD - dense), of the best shapes: above 0 its gain is less than their sum.

    Twice dense's runs are in the sum of the parts and once in MoDE's, so that once is left.
    """
    added, taken = ([results.best(name, budget) for name in names] for names in ((mode, REFERENCE), ("moe", "mod")))
    every = [*added, *taken]
    if any(runs.empty for runs in every):
        return None

    def total(of: Callable[[pd.DataFrame], float]) -> float:
        return sum(map(of, added)) - sum(map(of, taken))

    value = total(lambda runs: float(runs["loss"].mean()))
    later = [runs.loc[runs["seed"] > 0, "loss"] for runs in every]
    fresh = None
    if all(len(losses) for losses in later):
        fresh = total(lambda runs: float(runs.loc[runs["seed"] > 0, "loss"].mean()))
    sd, degrees = seed_spread(_like(results, added[0], taken[0]))
    if not degrees:
        return SeedDifference(value, None, None, None, fresh)
    seeds = sd * math.sqrt(sum(1 / len(runs) for runs in every))
    stderr = math.hypot(seeds, _stderr(_together(results, added), _together(results, taken)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * stderr
    return SeedDifference(value, value - half, value + half, detectable_difference(stderr, degrees), fresh)


def _like(results: Results, own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The runs whose spread over seeds is taken for theirs."""
    runs = results.runs[(results.runs["budget"] == own["budget"].iloc[0]) & (results.runs["stage"] != "rates")]
    if "controls" in (*own["stage"], *other["stage"]):
        return runs[runs["method"].isin([own["method"].iloc[0], other["method"].iloc[0]])]
    return runs[runs["stage"] != "controls"]


def seed_spread(runs: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over the shapes and settings in `runs`, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for _, cell in runs.groupby(_CELL, dropna=False):
        losses = cell.drop_duplicates("seed")["loss"].to_numpy(dtype=float)
        squares += float(np.sum((losses - losses.mean()) ** 2))
        degrees += len(losses) - 1
    return (math.sqrt(squares / degrees), degrees) if degrees else (0.0, 0)


def documents_stderr(results: Results, own: pd.DataFrame, other: pd.DataFrame) -> float:
    """Standard error over held-out documents of the difference of two runs, one of each; 0 where unknown."""
    return _stderr(_together(results, [own]), _together(results, [other]))


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


def _stderr(own: pd.DataFrame | None, other: pd.DataFrame | None) -> float:
    if own is None or other is None:
        return 0.0
    paired = paired_documents(own, other)
    if paired is None or paired.high is None:
        return 0.0
    return (paired.high - paired.value) / float(stats.t.ppf(0.975, paired.pairs - 1))
