"""Evidence on routers: learned against random, capacities, causal routers, and which tokens get depth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.formats import percent, signed
from bench.isoflop.analysis.differences import difference
from bench.isoflop.analysis.evidence import Evidence, if_better, if_true, in_words
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.studies import HARD, depth_models
from bench.stats.interval import Interval
from bench.stats.verdict import SMALLEST_EFFECT, decide_all

METHOD = "mod"


def ablated(results: Results) -> tuple[float, str] | None:
    """The budget of the ablations, and the query that finds the method's own runs of their shape."""
    ablations = results.runs[results.runs["stage"] == "controls"]
    if ablations.empty:
        return None
    budget = float(ablations["budget"].iloc[0])
    best = results.best(METHOD, budget)
    if best.empty:
        return None
    shape = f"n_layers == {best['n_layers'].iloc[0]} and d_model == {best['d_model'].iloc[0]}"
    return budget, f"budget == {budget} and {shape}"


def learned_against_random(results: Results) -> list[Evidence]:
    """Mean over the capacities that a random router was run at."""
    query = _own(results, "router == 'learned'")
    if not query:
        return []
    random = "stage == 'controls' and router == 'gaussian'"
    ablations = results.runs.query(random)
    pairs = [(_runs(results, f"{query} and capacity == {c}"), _runs(results, f"{random} and capacity == {c}"))
             for c in sorted(ablations["capacity"].unique())]  # fmt: skip
    pairs = [pair for pair in pairs if len(pair[0]) and len(pair[1])]
    capacities = ", ".join(percent(float(own["capacity"].iloc[0])) for own, _ in pairs)
    return _compared(results, {f"capacities {capacities}": pairs}) if pairs else []


def smallest_capacity(results: Results) -> list[Evidence]:
    """12.5 % minus every other capacity, one family."""
    query = _own(results, "router == 'learned'")
    if not query:
        return []
    others = sorted(set(results.runs.query(query)["capacity"].unique()) - {0.125})
    smallest = _runs(results, f"{query} and capacity == 0.125")
    return _compared(
        results,
        {f"minus {percent(c, 0)}": [(smallest, _runs(results, f"stage == 'controls' and {query} and capacity == {c}"))]
         for c in others},
    )  # fmt: skip


def agreement_with_top_k(results: Results, at_least: float) -> list[Evidence]:
    """Of the causal router, over the runs of all budgets."""
    own = results.sized.query(f"method == '{METHOD}'")["accuracy"].dropna().to_numpy(dtype=float)
    if not len(own):
        return []
    value = _mean(own)
    less = value.below(at_least)
    text = f"{in_words(value, percent)}, {len(own)} runs, lowest {percent(own.min())}"
    return [if_true(text, None if less is None else not less, value, at_least)]


def cost_of_causality(results: Results, at_most: float) -> list[Evidence]:
    """Loss with the causal router over that with top-k, over the runs of all budgets."""
    own = results.sized.query(f"method == '{METHOD}'").dropna(subset=["loss_noncausal"])
    if not len(own):
        return []
    value = _mean((own["loss"] / own["loss_noncausal"] - 1).to_numpy(dtype=float))
    text = f"{in_words(value, lambda v: percent(v, 2))}, {len(own)} runs"
    return [if_true(text, value.below(at_most), value, at_most)]


def predictor_against_bce(results: Results) -> list[Evidence]:
    """The two causal routers, at the shape of the ablations."""
    query = _own(results, "capacity == 0.125")
    if not query:
        return []
    bce = "stage == 'controls' and causal == 'bce' and capacity == 0.125"
    own = _runs(results, f"{query} and causal != 'bce'")
    return _compared(results, {"predictor minus BCE": [(own, _runs(results, bce))]})


def difficulty(results: Results) -> list[Evidence]:
    """Rank correlations of depth used with what the dense model finds hard about predicting the next token.

    Models are the units: another seed routes otherwise. Unadjusted, and at equal position, frequency and kind: hard
    tokens differ in position and kind, so the two numbers may differ in sign.
    """
    models = depth_models(results)
    found = []
    for adjusted in (False, True):
        for name in HARD:
            own = [each.rho for model in models for each in model
                   if each.covariate == name and (each.given != "none") == adjusted]  # fmt: skip
            if not own:
                continue
            value = _mean(np.array(own))
            many = f"{len(own)} model{'s' * (len(own) != 1)}"
            what = f"{'adjusted' if adjusted else 'unadjusted'}, {name.removesuffix(' of the next token')}"
            found.append(if_true(f"{what}: {in_words(value, signed)}, {many}", _above(value), value, 0.0))
    return found


def _above(value: Interval) -> bool | None:
    below = value.below(0.0)
    return None if below is None else not below


def _own(results: Results, query: str) -> str:
    """The query that finds the method's own runs, at the shape of the ablations; empty without ablations."""
    where = ablated(results)
    return f"{where[1]} and method == '{METHOD}' and {query} and stage != 'rates'" if where else ""


Pairs = list[tuple[pd.DataFrame, pd.DataFrame]]


def _compared(results: Results, families: dict[str, Pairs]) -> list[Evidence]:
    """Name -> the first sets of runs minus the second, mean over pairs; verdicts for all names together (Holm)."""
    values = {}
    for name, pairs in families.items():
        value = difference(results, *([pair[side] for pair in pairs] for side in (0, 1)))
        if value is not None:
            values[name] = value
    where = ablated(results)
    dense = results.best(REFERENCE, where[0])["loss"].mean() if where else float("nan")
    verdicts = decide_all(list(values.values()), [SMALLEST_EFFECT * float(dense)] * len(values))
    return [if_better(f"{name}: {in_words(value, signed)}", verdict, value)
            for (name, value), verdict in zip(values.items(), verdicts, strict=True)]  # fmt: skip


def _runs(results: Results, query: str) -> pd.DataFrame:
    return results.runs.query(query).drop_duplicates("seed")


def _mean(values: np.ndarray) -> Interval:
    """Mean over runs, with its t interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean)
    return Interval.from_stderr(mean, float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1)
