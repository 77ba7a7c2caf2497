"""Evidence on routers: against a random one, over capacities, the causal ones, and what they give depth to."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from bench.formats import percent, power, signed
from bench.isoflop.analysis.differences import difference
from bench.isoflop.analysis.evidence import Evidence, beyond, interval
from bench.isoflop.analysis.results import Results
from bench.stats.parabolas import Estimate

METHOD = "mod"
_FEWEST_DOCUMENTS = 5  # fewer say nothing of the spread between documents
_HARD = ("loss of the next token", "entropy of the next token")


def controlled(results: Results) -> tuple[float, str] | None:
    """The budget of the controls, and the query that finds the method's own runs of their shape."""
    controls = results.runs[results.runs["stage"] == "controls"]
    if controls.empty:
        return None
    budget = float(controls["budget"].iloc[0])
    best = results.best(METHOD, budget)
    if best.empty:
        return None
    shape = f"n_layers == {best['n_layers'].iloc[0]} and d_model == {best['d_model'].iloc[0]}"
    return budget, f"budget == {budget} and {shape}"


def learned_against_random(results: Results) -> list[Evidence]:
    """At each capacity that a random router was run at."""
    where = controlled(results)
    if where is None:
        return []
    found = []
    controls = results.runs[(results.runs["stage"] == "controls") & (results.runs["router"] == "gaussian")]
    for capacity in sorted(controls["capacity"].unique()):
        learned = f"{where[1]} and method == 'mod' and capacity == {capacity} and stage != 'rates'"
        random = f"stage == 'controls' and router == 'gaussian' and capacity == {capacity}"
        value = difference(results, _runs(results, learned), _runs(results, random))
        if value is not None:
            told = f"learned minus random at capacity {percent(capacity)}: {interval(value, signed)} nats"
            found.append(Evidence(told, beyond(value, 0.0)))
    return found


def smallest_capacity(results: Results) -> list[Evidence]:
    """12.5 % minus every other capacity: agrees where better at 95 %, contradicts where worse at 95 % of them all."""
    where = controlled(results)
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
        told = f"12.5 % minus {percent(capacity)}: {interval(value, signed)} nats"
        if of_all.low is not None and of_all.high is not None:
            told += f", {signed(of_all.low)} to {signed(of_all.high)} for all {len(others)}"
        better, worse = beyond(value, 0.0), beyond(of_all, 0.0)
        found.append(Evidence(told, True if better else False if worse is False else None))
    return found


def agreement_with_top_k(results: Results, at_least: float) -> list[Evidence]:
    """Of the causal router, over the runs of each budget."""
    found = []
    for budget in results.budgets:
        own = results.cell(METHOD, budget)["accuracy"].dropna().to_numpy(dtype=float)
        if len(own):
            value = _mean(own)
            below = beyond(value, at_least)
            told = f"{len(own)} runs at {power(budget)} FLOPs {interval(value, percent)}, lowest {percent(own.min())}"
            found.append(Evidence(told, None if below is None else not below))
    return found


def cost_of_causality(results: Results, at_most: float) -> list[Evidence]:
    """Loss with the causal router over that with top-k."""
    found = []
    for budget in results.budgets:
        own = results.cell(METHOD, budget).dropna(subset=["loss_noncausal"])
        if len(own):
            value = _mean((own["loss"] / own["loss_noncausal"] - 1).to_numpy(dtype=float))
            told = f"{len(own)} runs at {power(budget)} FLOPs {interval(value, lambda v: percent(v, 2))}"
            found.append(Evidence(told, beyond(value, at_most)))
    return found


def predictor_against_bce(results: Results) -> list[Evidence]:
    """The two causal routers, at the shape of the controls."""
    where = controlled(results)
    if where is None:
        return []
    own = _runs(results, f"{where[1]} and method == 'mod' and capacity == 0.125 and stage != 'rates'")
    value = difference(results, own, _runs(results, "stage == 'controls' and causal == 'bce' and capacity == 0.125"))
    return [] if value is None else [Evidence(f"predictor minus BCE: {interval(value, signed)} nats", beyond(value, 0))]


def difficulty(results: Results) -> list[Evidence]:
    """Rank correlations of depth used with what the dense model finds hard about predicting the next token.

    As they are, and at equal position, frequency and kind: hard tokens stand elsewhere and are of other
    kinds, so that either figure alone may have the other's sign.
    """
    study = results.study.tokens
    use = study.depth.get(METHOD) if study else None
    if study is None or use is None:
        return []
    found = []
    for each in sorted(use.correlations, key=lambda each: each.given != "none"):
        if each.layer != "all" or each.covariate not in _HARD:
            continue
        told = f"{'as it is' if each.given == 'none' else f'at equal {each.given}'}, {each.covariate}: "
        if each.low is None or each.high is None or study.documents < _FEWEST_DOCUMENTS:
            found.append(Evidence(f"{told}{signed(each.rho)} (no interval: {study.documents} documents)", None))
            continue
        sign = True if each.low > 0 else False if each.high < 0 else None
        told += f"{signed(each.rho)} ({signed(each.low)} to {signed(each.high)})"
        found.append(Evidence(told, sign if each.p is not None and each.p < 0.05 else None))
    return found


def _runs(results: Results, query: str) -> pd.DataFrame:
    return results.runs.query(query).drop_duplicates("seed")


def _mean(values: np.ndarray) -> Estimate:
    """Mean over runs, with its t interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)
