"""Evidence on what a method costs: forward FLOPs, step time, decoding, energy."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bench.formats import power, times
from bench.isoflop.analysis.evidence import Evidence, beyond, interval
from bench.isoflop.analysis.iso_loss import Parity
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.parabolas import Estimate


def ratio(parity: Parity, value: Estimate | None, at_most: float) -> Evidence:
    """Of a model as good as dense's best over that."""
    where = f"at {power(parity.budget)} FLOPs"
    if value is None:
        return Evidence(f"{where}: {parity.why or 'its steps were not timed'}", None)
    return Evidence(f"{where} {interval(value, times)} dense’s", beyond(value, at_most))


def within(budget: float, value: Estimate | None, low: float, high: float) -> Evidence:
    """Of the method's best size over dense's."""
    where = f"at {power(budget)} FLOPs"
    if value is None:
        return Evidence(f"{where}: no optimum inside the sizes that were run", None)
    inside: bool | None = None
    if value.low is not None and value.high is not None:
        inside = True if low <= value.low and value.high <= high else None
        inside = False if value.high < low or value.low > high else inside
    return Evidence(f"{where} {interval(value, times)} dense’s", inside)


def decoded_model(results: Results) -> str:
    """Of what model; the decode study has one of its own, and dense of the same shape."""
    shape = results.decode.shape if results.decode else {}
    if not {"n_layers", "d_model"} <= set(shape):
        return ""
    return f" (study decode, {shape['n_layers']} × {shape['d_model']}, beside dense of equal shape)"


def decoding(results: Results, method: str, at_least: float) -> list[Evidence]:
    """Every point of the decode study; agrees where all of its interval is at least so many times dense's speed."""
    points = (results.decode.decode or {}).get(method, []) if results.decode else []
    found = []
    for point in points:
        if point.speedup_realised:
            speed = point.speedup_realised
            slower = Estimate(-speed.median, -speed.high, -speed.low)
            told = f"batch size {point.batch_size}, context {point.context}: {times(speed.median)}"
            found.append(Evidence(f"{told} ({times(speed.low)} to {times(speed.high)})", beyond(slower, -at_least)))
    return found


def energy(results: Results, method: str) -> list[Evidence]:
    """Joules of the best shapes' whole training over dense's, budget by budget, where runs were metered."""
    found = []
    for budget in results.budgets:
        own, dense = (
            np.log(results.best(name, budget)["joules"].dropna().to_numpy(dtype=float)) for name in (method, REFERENCE)
        )
        if not len(own) or not len(dense):
            continue
        value = float(own.mean() - dense.mean())
        degrees = len(own) + len(dense) - 2
        share = Estimate(math.exp(value))
        if min(len(own), len(dense)) > 1:
            pooled = math.sqrt((np.sum((own - own.mean()) ** 2) + np.sum((dense - dense.mean()) ** 2)) / degrees)
            half = float(stats.t.ppf(0.975, degrees)) * pooled * math.sqrt(1 / len(own) + 1 / len(dense))
            share = Estimate(math.exp(value), math.exp(value - half), math.exp(value + half))
        found.append(Evidence(f"at {power(budget)} FLOPs {interval(share, times)} dense’s", beyond(share, 1.0)))
    return found
