"""Evidence on routers: learned against random, capacities, causal routers, and which tokens get depth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.formats import percent, power, signed
from bench.isoflop.analysis.differences import difference
from bench.isoflop.analysis.evidence import Evidence, in_words
from bench.isoflop.analysis.results import Results
from bench.stats.interval import Interval

METHOD = "mod"
_FEWEST_DOCUMENTS = 5  # fewer do not show the spread between documents
_HARD = ("loss of the next token", "entropy of the next token")


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
    """At each capacity that a random router was run at."""
    where = ablated(results)
    if where is None:
        return []
    found = []
    ablations = results.runs[(results.runs["stage"] == "controls") & (results.runs["router"] == "gaussian")]
    for capacity in sorted(ablations["capacity"].unique()):
        learned = f"{where[1]} and method == 'mod' and capacity == {capacity} and stage != 'rates'"
        random = f"stage == 'controls' and router == 'gaussian' and capacity == {capacity}"
        value = difference(results, _runs(results, learned), _runs(results, random))
        if value is not None:
            found.append(Evidence(f"capacity {percent(capacity)}: {in_words(value, signed)}", value.below(0.0)))
    return found


def smallest_capacity(results: Results) -> list[Evidence]:
    """12.5 % minus every other capacity: supports if better at 95 %, contradicts if worse at 95 % for all together."""
    where = ablated(results)
    if where is None:
        return []
    own = results.runs.query(f"{where[1]} and method == 'mod' and router == 'learned' and stage != 'rates'")
    others = sorted(set(own["capacity"].unique()) - {0.125})
    smallest = _runs(results, f"{where[1]} and method == 'mod' and capacity == 0.125 and stage != 'rates'")
    found = []
    for capacity in others:
        other = _runs(results, f"stage == 'controls' and method == 'mod' and capacity == {capacity}")
        value = difference(results, smallest, other)
        of_all = difference(results, smallest, other, confidence=1 - 0.05 / len(others))  # Bonferroni
        if value is None or of_all is None:
            continue
        text = f"minus {percent(capacity, 0)}: {in_words(value, signed)}"
        if of_all.low is not None and of_all.high is not None:
            text += f", for all {len(others)} {signed(of_all.low)} to {signed(of_all.high)}"
        better, worse = value.below(0.0), of_all.below(0.0)
        found.append(Evidence(text, True if better else False if worse is False else None))
    return found


def agreement_with_top_k(results: Results, at_least: float) -> list[Evidence]:
    """Of the causal router, over the runs of each budget."""
    found = []
    for budget in results.budgets:
        own = results.cell(METHOD, budget)["accuracy"].dropna().to_numpy(dtype=float)
        if len(own):
            value = _mean(own)
            less = value.below(at_least)
            text = f"{power(budget)}: {in_words(value, percent)}, {len(own)} runs, lowest {percent(own.min())}"
            found.append(Evidence(text, None if less is None else not less))
    return found


def cost_of_causality(results: Results, at_most: float) -> list[Evidence]:
    """Loss with the causal router over that with top-k."""
    found = []
    for budget in results.budgets:
        own = results.cell(METHOD, budget).dropna(subset=["loss_noncausal"])
        if len(own):
            value = _mean((own["loss"] / own["loss_noncausal"] - 1).to_numpy(dtype=float))
            text = f"{power(budget)}: {in_words(value, lambda v: percent(v, 2))}, {len(own)} runs"
            found.append(Evidence(text, value.below(at_most)))
    return found


def predictor_against_bce(results: Results) -> list[Evidence]:
    """The two causal routers, at the shape of the ablations."""
    where = ablated(results)
    if where is None:
        return []
    own = _runs(results, f"{where[1]} and method == 'mod' and capacity == 0.125 and stage != 'rates'")
    value = difference(results, own, _runs(results, "stage == 'controls' and causal == 'bce' and capacity == 0.125"))
    return [] if value is None else [Evidence(f"predictor minus BCE {in_words(value, signed)}", value.below(0))]


def difficulty(results: Results) -> list[Evidence]:
    """Rank correlations of depth used with what the dense model finds hard about predicting the next token.

    Unadjusted, and at equal position, frequency and kind: hard tokens differ in position and kind, so the two numbers
    may differ in sign.
    """
    study = results.study.tokens
    use = study.depth.get(METHOD) if study else None
    if study is None or use is None:
        return []
    found = []
    for each in sorted(use.correlations, key=lambda each: each.given != "none"):
        if each.layer != "all" or each.covariate not in _HARD:
            continue
        adjusted = "unadjusted" if each.given == "none" else "adjusted"
        text = f"{adjusted}, {each.covariate.removesuffix(' of the next token')}: {signed(each.rho)}"
        if each.low is None or each.high is None or study.documents < _FEWEST_DOCUMENTS:
            found.append(Evidence(f"{text} (no interval, {study.documents} documents)", None))
            continue
        sign = True if each.low > 0 else False if each.high < 0 else None
        text += f" ({signed(each.low)} to {signed(each.high)})"
        found.append(Evidence(text, sign if each.p is not None and each.p < 0.05 else None))
    return found


def _runs(results: Results, query: str) -> pd.DataFrame:
    return results.runs.query(query).drop_duplicates("seed")


def _mean(values: np.ndarray) -> Interval:
    """Mean over runs, with its t interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean)
    return Interval.from_stderr(mean, float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1)
