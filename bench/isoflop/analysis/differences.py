"""Differences between shapes that were run with several seeds, at one budget and pooled over budgets.

The best shape was chosen on seed 0, which makes its loss on that seed too low. So differences use the other seeds,
which are free of selection. Seeds are the units. A shape with six seeds and more has its own variance (Welch); with
fewer, the variance is pooled over the best shapes of all methods at the budget, or for an ablation over all runs of the
two methods. Validation documents and, for best shapes, the choice of the learning rate add their variance. Both are
common to all budgets, so pooling does not average them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.isoflop.analysis.rate_sweep import rate_cost
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.difference import Source, estimate, of_mean, satterthwaite
from bench.stats.interval import Interval
from bench.stats.paired import document_source
from bench.stats.pooling import pool_budgets
from bench.stats.verdict import Verdict

PARTS = ("moe", "mod")
AT_EDGE, NEAR_EDGE = "at grid edge", "near grid edge"
_OWN_VARIANCE = 6  # seeds of a shape from which its own variance is used
_CELL = ["method", "capacity", "router", "causal", "n_layers", "d_model"]

Cells = Sequence[pd.DataFrame]  # sets of runs, each of one shape at one budget


def best_difference(
    results: Results, method: str, other: str, budget: float, all_seeds: bool = False
) -> Interval | None:
    """Loss of a method's best shape minus that of another's at a budget, nats/token; None if one was not run."""
    return _of_best(results, [method], [other], budget, all_seeds)


def sum_of_gains(results: Results, mode: str, budget: float) -> Interval | None:
    """(MoDE - dense) - (MoE - dense) - (MoD - dense), of the best shapes: above 0 MoDE gains less than the sum.

    Dense's runs occur twice in the sum of the parts and once in MoDE's difference, so once remains.
    """
    return _of_best(results, [mode, REFERENCE], PARTS, budget)


def pooled(results: Results, added: Sequence[str], taken: Sequence[str]) -> Interval | None:
    """Losses of best shapes `added` minus those `taken`, over all budgets at which each has seeds; None without any."""
    budgets = pooled_budgets(results, [*added, *taken])
    if not budgets:
        return None
    each = [_difference(results, _sides(results, added, taken, budget), []) for budget in budgets]
    return pool_budgets(each, *_shared(results, added, taken, budgets))


def pooled_budgets(results: Results, methods: Sequence[str]) -> list[float]:
    """The budgets at which every method has a best shape with seeds not used for model selection, which differ."""

    def seeded(budget: float) -> bool:
        best = [results.best(name, budget) for name in methods]
        return all(len(fresh(runs)) for runs in best) and seed_spread(_pooled_with(results, best))[0] > 0

    return [budget for budget in results.budgets if seeded(budget)]


def shared_variance(results: Results, method: str) -> float:
    """Of a method's difference from dense: the part that budgets have in common, (nats/token)²."""
    names = ([method], [REFERENCE])
    return sum(source.variance for source in _shared(results, *names, pooled_budgets(results, [method, REFERENCE])))


def difference(results: Results, own: Cells, other: Cells) -> Interval | None:
    """Mean over pairs of runs of one shape and at the same budget and rate, such as an ablation at several capacities.

    None if a set of runs is empty.
    """
    if any(runs.empty for runs in (*own, *other)):
        return None
    sides = [[fresh(runs) if len(fresh(runs)) else runs for runs in side] for side in (own, other)]
    return _difference(results, sides, _documents(results, sides)).divided_by(len(own))


def fresh(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on seeds not used for model selection."""
    return runs[runs["stage"] != "grid"]


def bounded(results: Results, methods: Sequence[str], budgets: Sequence[float]) -> list[str]:
    """Those that may do better than they did: a best shape at the grid edge, or a rate at the sweep's edge."""

    def at_edge(name: str) -> bool:
        return results.rate_status(name) == "edge" or any(edge(results, name, b) == AT_EDGE for b in budgets)

    return [name for name in methods if at_edge(name)]


def within_bounds(verdict: Verdict, added: Sequence[str], taken: Sequence[str]) -> Verdict:
    """The verdict on losses added minus taken, where the `bounded` methods on either side may do better.

    Those added can then only be better, those taken only worse.
    """
    allowed = [Verdict.BETTER] * (not taken) + [Verdict.WORSE] * (not added)
    return verdict if verdict in allowed or not (added or taken) else Verdict.INCONCLUSIVE


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


def document_noise(results: Results, method: str, other: str, budget: float) -> Source:
    """Of the best shapes of two methods at a budget; also used for the nearby minima, where there is no run."""
    own, against = results.best(method, budget), results.best(other, budget)
    found = [] if own.empty or against.empty else _documents(results, [[own], [against]])
    return found[0] if found else Source(0.0)


def drawn(source: Source, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) errors to add to a difference and its draws: 0 for the first, Student's t for the others."""
    errors = np.zeros(count)
    if source.variance > 0.0:
        errors[1:] = math.sqrt(source.variance) * rng.standard_t(source.degrees, count - 1)
    return errors


def seed_spread(runs: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over the shapes and settings in `runs`, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for _, cell in runs.groupby(_CELL, dropna=False):
        losses = cell.drop_duplicates("seed")["loss"].to_numpy(dtype=float)
        squares += float(((losses - losses.mean()) ** 2).sum())
        degrees += len(losses) - 1
    return (math.sqrt(squares / degrees), degrees) if degrees else (0.0, 0)


def _of_best(
    results: Results, added: Sequence[str], taken: Sequence[str], budget: float, all_seeds: bool = False
) -> Interval | None:
    """If a shape has only the seed that chose it, the value is that of all seeds, without an interval."""
    best = [[results.best(name, budget) for name in side] for side in (added, taken)]
    if any(runs.empty for side in best for runs in side):
        return None
    selected_only = any(fresh(runs).empty for side in best for runs in side)
    sides = best if all_seeds or selected_only else _sides(results, added, taken, budget)
    value = _difference(results, sides, [*_documents(results, sides), *_rates(results, added, taken)])
    return Interval(value.value) if selected_only and not all_seeds else value


def _sides(results: Results, added: Sequence[str], taken: Sequence[str], budget: float) -> list[list[pd.DataFrame]]:
    """The runs of best shapes on seeds not used for model selection."""
    return [[fresh(results.best(name, budget)) for name in side] for side in (added, taken)]


def _shared(
    results: Results, added: Sequence[str], taken: Sequence[str], budgets: Sequence[float]
) -> list[Source]:  # fmt: skip
    """What the differences of best shapes at several budgets have in common."""
    cells = [_sides(results, added, taken, budget) for budget in budgets]
    joined = [[pd.concat(place) for place in zip(*side, strict=True)] for side in zip(*cells, strict=True)]
    return [*_documents(results, joined), *_rates(results, added, taken)]


def _difference(results: Results, sides: Sequence[Cells], others: Sequence[Source]) -> Interval:
    """Mean losses of the first side minus those of the second, with the variance of seeds and of `others`."""
    added, taken = sides
    cells = [*added, *taken]
    value = sum(float(runs["loss"].mean()) for runs in added) - sum(float(runs["loss"].mean()) for runs in taken)
    many = [runs for runs in cells if len(runs) >= _OWN_VARIANCE]
    shares = sum(1 / len(runs) for runs in cells if len(runs) < _OWN_VARIANCE)
    sd, degrees = seed_spread(_pooled_with(results, cells))
    if shares and not degrees:
        return Interval(value)
    seeds = [of_mean(runs["loss"].tolist()) for runs in many] + [Source(shares * sd**2, degrees)] * bool(shares)
    return estimate(value, [*seeds, *others], min(map(len, cells)), "seeds")


def _pooled_with(results: Results, cells: Cells) -> pd.DataFrame:
    """The runs over which the standard deviation over seeds of `cells` is pooled."""
    budget = cells[0]["budget"].iloc[0]
    runs = results.runs[(results.runs["budget"] == budget) & (results.runs["stage"] != "rates")]
    if any("controls" in set(cell["stage"]) for cell in cells):
        return runs[runs["method"].isin([cell["method"].iloc[0] for cell in cells])]
    return runs[runs["stage"] != "controls"]


def _documents(results: Results, sides: Sequence[Cells]) -> list[Source]:
    """Of other validation documents, averaged over the runs of each set; empty where records do not hold them."""
    added, taken = ([[results.files[run].documents for run in runs["id"]] for runs in side] for side in sides)
    source = document_source(added, taken)
    return [source] if source is not None else []


def _rates(results: Results, added: Sequence[str], taken: Sequence[str]) -> list[Source]:
    """Of the choice of each method's learning rate, where a sweep chose it."""
    rules = {results.method_of(name): rule for name, rule in results.study.learning_rates.items()}
    costs = [rate_cost(rules.get(name)) for name in (*added, *taken)]
    known = [cost for cost in costs if cost is not None]
    return [satterthwaite(known)] if known else []
