"""Differences between shapes that were run with several seeds, with intervals over seeds and validation documents.

The best shape was chosen on seed 0, which makes its loss on that seed too low. So differences use the other seeds,
which are free of selection. The standard deviation over seeds is pooled, because three seeds of one shape say little
about it: over the best shapes of all methods at the budget, or for an ablation over all runs of the two methods.
Pairing by seed does not help where methods draw different numbers from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.difference import minimum_detectable_effect
from bench.stats.interval import CONFIDENCE, Interval
from bench.stats.paired import document_source

PARTS = ("moe", "mod")
AT_EDGE, NEAR_EDGE = "at grid edge", "near grid edge"
_CELL = ["method", "capacity", "router", "causal", "n_layers", "d_model"]


def best_difference(
    results: Results, method: str, other: str, budget: float, all_seeds: bool = False
) -> Interval | None:
    """Loss of a method's best shape minus that of another's at a budget, nats/token; None if one was not run."""
    own, against = (results.best(name, budget) for name in (method, other))
    return difference(results, own, against, all_seeds=all_seeds)


def difference(
    results: Results, own: pd.DataFrame, other: pd.DataFrame, confidence: float = CONFIDENCE, all_seeds: bool = False
) -> Interval | None:
    """Between two sets of runs, each of one shape and at the same budget."""
    return _difference(results, [own], [other], confidence, all_seeds)


def sum_of_gains(results: Results, mode: str, budget: float) -> Interval | None:
    """(MoDE - dense) - (MoE - dense) - (MoD - dense), of the best shapes: above 0 MoDE gains less than the sum.

    Dense's runs occur twice in the sum of the parts and once in MoDE's difference, so once remains.
    """
    added, taken = ([results.best(name, budget) for name in names] for names in ((mode, REFERENCE), PARTS))
    return _difference(results, added, taken, CONFIDENCE)


def below(
    results: Results, budget: float, added: Sequence[str], taken: Sequence[str], value: Interval | None,
    limit: float = 0.0,
) -> bool | None:  # fmt: skip
    """Whether losses of best shapes `added` minus those `taken` are below `limit`; None: inconclusive.

    The whole interval has to be on one side. A best shape at the grid edge counts only for its method, because
    another size of that method would do as well or better.
    """
    answer = value.below(limit) if value else None
    at_edge = {name for name in (*added, *taken) if edge(results, name, budget) == AT_EDGE}
    return None if answer is not None and at_edge & set(taken if answer else added) else answer


def edge(results: Results, method: str, budget: float) -> str:
    """Whether the best shape is the smallest or largest that was run, or next to one; in words, or empty."""
    best = results.best(method, budget)
    if best.empty:
        return ""
    sizes = sorted(results.cell(method, budget)["forward_flops"].unique())
    place = sizes.index(best["forward_flops"].iloc[0])
    if place in (0, len(sizes) - 1):
        return AT_EDGE
    return NEAR_EDGE if place in (1, len(sizes) - 2) else ""


@dataclass(frozen=True)
class DocumentNoise:
    """Standard error of a difference over validation documents, nats/token; 0 where records do not hold them."""

    stderr: float
    degrees: float  # effective

    def errors(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) to add to a difference and its draws: 0 for the first, t of its degrees for others."""
        drawn = np.zeros(count)
        if self.stderr > 0.0:
            drawn[1:] = self.stderr * rng.standard_t(self.degrees, count - 1)
        return drawn


def document_noise(results: Results, method: str, other: str, budget: float) -> DocumentNoise:
    """Of the best shapes of two methods at a budget; also used for the nearby minima, where there is no run."""
    own, against = results.best(method, budget), results.best(other, budget)
    return DocumentNoise(0.0, 0.0) if own.empty or against.empty else _document_noise(results, [own], [against])


def _document_noise(results: Results, added: list[pd.DataFrame], taken: list[pd.DataFrame]) -> DocumentNoise:
    """Of a sum of losses minus another, each that of the first run, by seed, of a set of runs of one shape."""
    source = document_source(_first_documents(results, added), _first_documents(results, taken))
    return DocumentNoise(math.sqrt(source.variance), source.degrees) if source else DocumentNoise(0.0, 0.0)


def _first_documents(results: Results, cells: list[pd.DataFrame]) -> list[list[pd.DataFrame | None]]:
    """Validation documents of the first run of each cell; None if it has no such file."""
    return [[results.files[runs.sort_values("seed")["id"].iloc[0]].documents] for runs in cells]


def _difference(
    results: Results, added: list[pd.DataFrame], taken: list[pd.DataFrame], confidence: float, all_seeds: bool = False
) -> Interval | None:
    """Mean losses of the first sets of runs minus those of the others; None if one is empty.

    If a shape has only the seed that chose it, the value is that of all seeds, without an interval.
    """
    if any(runs.empty for runs in (*added, *taken)):
        return None
    sd, degrees = seed_spread(_pooled_with(results, [*added, *taken]))
    fresh = [[runs[runs["stage"] != "grid"] for runs in side] for side in (added, taken)]
    selected_only = any(runs.empty for side in fresh for runs in side)
    if not all_seeds and not selected_only:
        added, taken = fresh
    value = sum(float(runs["loss"].mean()) for runs in added) - sum(float(runs["loss"].mean()) for runs in taken)
    if not degrees or (selected_only and not all_seeds):
        return Interval(value)
    over_seeds = sd * math.sqrt(sum(1 / len(runs) for runs in (*added, *taken)))
    stderr = math.hypot(over_seeds, _document_noise(results, added, taken).stderr)
    detectable = minimum_detectable_effect(stderr, degrees)
    return replace(
        Interval.from_stderr(value, stderr, degrees, confidence), minimum_detectable=detectable, unit="seeds"
    )


def _pooled_with(results: Results, cells: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The runs over which the standard deviation over seeds of `cells` is pooled."""
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
