"""The popular claims about Mixture-of-Depths, each beside what the study measured of it, and the verdict.

A verdict compares a 95 % interval with the claim: all of it where the claim puts it, the claim holds here; all of it
elsewhere, it does not; otherwise it cannot be told. A claim about several budgets holds if it does at every one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.fit.parabolas import Estimate
from bench.report.estimate import Estimate as Paired
from bench.report.estimate import paired_seeds
from bench.report.formats import percent, power, scaled, signed, times
from bench.report.isoflop.curves import Comparison, Parity
from bench.report.isoflop.results import Results

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "cannot be told"
PAPER = "Raposo et al. 2024, arXiv 2404.02258"
POPULAR = "popular accounts of that paper"
_METHOD = "mod"


@dataclass(frozen=True)
class Claim:
    """`measured`: in words, with intervals; `settles`: what would settle it, or settle it at scale."""

    text: str
    source: str
    measured: str
    verdict: str
    settles: str


@dataclass(frozen=True)
class Evidence:
    """One interval, in words, and whether it speaks for the claim: True, False, or None for neither."""

    told: str
    speaks: bool | None


def claims(results: Results, compared: Sequence[Comparison], parities: Sequence[Parity]) -> list[Claim]:
    """Every claim that the study has something to say about."""
    equal_flops = [c for c in compared if c.contract == "train_flops" and c.method == _METHOD]
    parity = [p for p in parities if p.method == _METHOD]
    larger = "isoflop_h200 (1e15 to 3e16 FLOPs a run), then the paper’s own grid (study paper)"
    found = [
        Claim(
            "Better loss than dense at equal training FLOPs, both at their best size.", PAPER,
            *_verdict([_difference(c, below=0.0) for c in equal_flops]), larger,
        ),
        Claim(
            "Up to 1.5 % better loss at equal training FLOPs.", PAPER,
            *_verdict([_share(c, below=-0.015) for c in equal_flops], all_of=False), larger,
        ),
        Claim(
            "A model equal to the isoFLOP-optimal baseline needs about half the FLOPs per forward pass (0.6 and less).",
            PAPER, *_verdict([_ratio(p, p.forward_flops, at_most=0.6) for p in parity]), larger,
        ),
        Claim(
            "Such a model steps more than 60 % faster (a step in 1 / 1.6 of the time).", PAPER,
            *_verdict([_ratio(p, p.step_time, at_most=1 / 1.6) for p in parity]),
            "a GPU: on this machine a small step is mostly overhead, not FLOPs",
        ),
        Claim(
            "The best size spends about the baseline’s FLOPs per forward pass (within a quarter).", PAPER,
            *_verdict([_within(p.budget, p.optimum_flops, 0.8, 1.25) for p in parity]), larger,
        ),
        Claim(
            "Gains of depth and experts add up: MoDE is better than MoE and than MoD.", PAPER,
            *_verdict(_compounding(results)), larger,
        ),
        Claim(
            "A learned router beats a random one.", PAPER, *_verdict(_controls(results, "gaussian")),
            "more seeds; larger models",
        ),
        Claim(
            "12.5 % is the best capacity of those from 12.5 to 95 %.", PAPER,
            *_verdict(_capacities(results)), "a grid of sizes for each capacity",
        ),
        Claim(
            "A small predictor agrees with top-k on 97 % of tokens and more.", PAPER,
            *_verdict(_accuracy(results, 0.97)), "it is settled where it was measured; larger models may differ",
        ),
        Claim(
            "Routing by that predictor costs next to no loss (0.5 % and less over top-k).", PAPER,
            *_verdict(_cost_of_causality(results, 0.005)),
            "it is settled where it was measured; larger models may differ",
        ),
        Claim(
            "The other causal router (BCE on the router itself) costs loss: it is worse than the predictor.", PAPER,
            *_verdict(_bce(results)), "more seeds",
        ),
        Claim(
            "Sampling steps are upwards of 50 % faster.", PAPER, *_verdict(_decoding(results)),
            "a GPU, with a kernel that skips rows without a launch for each",
        ),
        Claim(
            "Hard tokens get more depth.", POPULAR, *_verdict(_difficulty(results)),
            "larger models, other text; and an intervention, for this is a correlation",
        ),
        Claim(
            "It holds past 1 B parameters.", POPULAR,
            f"the largest model here has {scaled(float(results.runs['params_total'].max()))} parameters", OPEN,
            "the study paper, or anything near it",
        ),
    ]  # fmt: skip
    return found


def _verdict(evidence: Sequence[Evidence], all_of: bool = True) -> tuple[str, str]:
    """What was measured, and whether all of it (or, for `up to`, any of it) speaks for the claim."""
    if not evidence:
        return "not measured", OPEN
    told = "; ".join(each.told for each in evidence)
    answers = [each.speaks for each in evidence]
    enough, against = (all, any) if all_of else (any, all)
    if enough(answer is True for answer in answers):
        return told, HOLDS
    return told, FAILS if against(answer is False for answer in answers) else OPEN


def _beyond(value: Estimate | Paired, limit: float) -> bool | None:
    """Whether all of the interval is below `limit`; False: all of it is above; None: neither, or no interval."""
    if value.low is None or value.high is None:
        return None
    return True if value.high < limit else False if value.low > limit else None


def _interval(value: Estimate | Paired, write: Callable[[float], str]) -> str:
    if value.low is None or value.high is None:
        return f"{write(value.value)} (no interval)"
    return f"{write(value.value)} ({write(value.low)} to {write(value.high)})"


def _difference(compared: Comparison, below: float) -> Evidence:
    if compared.value is None:
        return Evidence(f"at {power(compared.budget)} FLOPs: {compared.why}", None)
    told = f"at {power(compared.budget)} FLOPs {_interval(compared.value, signed)} nats"
    return Evidence(told, _beyond(compared.value, below))


def _share(compared: Comparison, below: float) -> Evidence:
    if compared.value is None or compared.dense_loss is None:
        return Evidence(f"at {power(compared.budget)} FLOPs: {compared.why}", None)
    value, loss = compared.value, compared.dense_loss
    ends = (end / loss if end is not None else None for end in (value.low, value.high))
    share = Estimate(value.value / loss, *ends)
    return Evidence(f"at {power(compared.budget)} FLOPs {_interval(share, percent)}", _beyond(share, below))


def _ratio(parity: Parity, value: Estimate | None, at_most: float) -> Evidence:
    where = f"at {power(parity.budget)} FLOPs"
    if value is None:
        return Evidence(f"{where}: {parity.why or 'its steps were not timed'}", None)
    return Evidence(f"{where} {_interval(value, times)} dense’s", _beyond(value, at_most))


def _within(budget: float, value: Estimate | None, low: float, high: float) -> Evidence:
    where = f"at {power(budget)} FLOPs"
    if value is None:
        return Evidence(f"{where}: no optimum inside the sizes that were run", None)
    inside: bool | None = None
    if value.low is not None and value.high is not None:
        inside = True if low <= value.low and value.high <= high else None
        inside = False if value.high < low or value.low > high else inside
    return Evidence(f"{where} {_interval(value, times)} dense’s", inside)


def seeds_difference(results: Results, method: str, other: str, budget: float) -> Paired | None:
    """Loss of the best shape of one method minus that of another, paired by seed, with the t interval."""
    return _paired(results.best(method, budget), results.best(other, budget))


def _paired(own: pd.DataFrame, other: pd.DataFrame) -> Paired | None:
    """Mean difference of the losses over the seeds that both have."""
    one, two = (runs.set_index("seed")["loss"] for runs in (own, other))
    seeds = one.index.intersection(two.index)
    return None if seeds.empty else paired_seeds(list(one[seeds]), list(two[seeds]))


def _compounding(results: Results) -> list[Evidence]:
    found = []
    mode = next((name for name in results.methods if name.startswith("mode")), None)
    for budget in results.budgets:
        for other in ("moe", _METHOD):
            if mode is None or other not in results.methods:
                continue
            value = seeds_difference(results, mode, other, budget)
            if value is not None:
                told = f"{mode} minus {other} at {power(budget)} FLOPs {_interval(value, signed)} nats"
                found.append(Evidence(told, _beyond(value, 0.0)))
    return found


def _control_difference(results: Results, own: str, other: str) -> Paired | None:
    """Mean loss over the seeds both have, `own` minus `other`; both are queries on the runs."""
    return _paired(*(results.runs.query(words).drop_duplicates("seed") for words in (own, other)))


def controlled(results: Results) -> tuple[float, str] | None:
    """The budget of the controls, and the query that finds the method's own runs of their shape."""
    controls = results.runs[results.runs["stage"] == "controls"]
    if controls.empty:
        return None
    budget = float(controls["budget"].iloc[0])
    best = results.best(_METHOD, budget)
    if best.empty:
        return None
    shape = f"n_layers == {best['n_layers'].iloc[0]} and d_model == {best['d_model'].iloc[0]}"
    return budget, f"budget == {budget} and {shape}"


def _controls(results: Results, router: str) -> list[Evidence]:
    where = controlled(results)
    if where is None:
        return []
    found = []
    controls = results.runs[(results.runs["stage"] == "controls") & (results.runs["router"] == router)]
    for capacity in sorted(controls["capacity"].unique()):
        learned = f"{where[1]} and method == 'mod' and capacity == {capacity} and stage != 'rates'"
        value = _control_difference(
            results, learned, f"stage == 'controls' and router == '{router}' and capacity == {capacity}"
        )
        if value is not None:
            told = f"learned minus random at capacity {percent(capacity)}: {_interval(value, signed)} nats"
            found.append(Evidence(told, _beyond(value, 0.0)))
    return found


def _capacities(results: Results) -> list[Evidence]:
    where = controlled(results)
    if where is None:
        return []
    found = []
    own = results.runs.query(f"{where[1]} and method == 'mod' and router == 'learned' and stage != 'rates'")
    smallest = f"{where[1]} and method == 'mod' and capacity == 0.125 and stage != 'rates'"
    for capacity in sorted(own["capacity"].unique()):
        if capacity == 0.125:
            continue
        value = _control_difference(
            results, smallest, f"stage == 'controls' and method == 'mod' and capacity == {capacity}"
        )
        if value is not None:
            found.append(
                Evidence(f"12.5 % minus {percent(capacity)}: {_interval(value, signed)} nats", _beyond(value, 0.0))
            )
    return found


def _spread(values: np.ndarray) -> Estimate:
    """Mean over runs, with the range that holds 95 % of them."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def _accuracy(results: Results, at_least: float) -> list[Evidence]:
    found = []
    for budget in results.budgets:
        own = results.cell(_METHOD, budget)["accuracy"].dropna().to_numpy(dtype=float)
        if len(own):
            value = _spread(own)
            below = _beyond(value, at_least)
            told = f"{len(own)} runs at {power(budget)} FLOPs {_interval(value, percent)}"
            found.append(Evidence(told, None if below is None else not below))
    return found


def _cost_of_causality(results: Results, at_most: float) -> list[Evidence]:
    found = []
    for budget in results.budgets:
        own = results.cell(_METHOD, budget).dropna(subset=["loss_noncausal"])
        if len(own):
            value = _spread((own["loss"] / own["loss_noncausal"] - 1).to_numpy(dtype=float))
            told = f"{len(own)} runs at {power(budget)} FLOPs {_interval(value, lambda v: percent(v, 2))}"
            found.append(Evidence(told, _beyond(value, at_most)))
    return found


def _bce(results: Results) -> list[Evidence]:
    where = controlled(results)
    if where is None:
        return []
    own = f"{where[1]} and method == 'mod' and capacity == 0.125 and stage != 'rates'"
    value = _control_difference(results, own, "stage == 'controls' and causal == 'bce' and capacity == 0.125")
    if value is None:
        return []
    return [Evidence(f"predictor minus BCE: {_interval(value, signed)} nats", _beyond(value, 0.0))]


def _decoding(results: Results) -> list[Evidence]:
    points = (results.decode.decode or {}).get(_METHOD, []) if results.decode else []
    found = []
    for point in points:
        if point.speedup_realised and point.batch_size in (1, 8, 32) and point.context >= 1024:
            speed = point.speedup_realised
            value = Estimate(-speed.median, -speed.high, -speed.low)
            told = f"batch size {point.batch_size}, context {point.context}: {times(speed.median)} dense’s speed"
            found.append(Evidence(f"{told} ({times(speed.low)} to {times(speed.high)})", _beyond(value, -1.5)))
    return found


def _difficulty(results: Results) -> list[Evidence]:
    study = results.study.tokens
    use = study.depth.get(_METHOD) if study else None
    if use is None:
        return []
    found = []
    for each in use.correlations:
        if each.layer == "all" and each.given != "none" and each.covariate != "loss of the token read":
            sign = True if each.low > 0 else False if each.high < 0 else None
            told = f"rank correlation with the {each.covariate} given {each.given}: {signed(each.rho)}"
            found.append(
                Evidence(f"{told} ({signed(each.low)} to {signed(each.high)})", sign if each.p < 0.05 else None)
            )
    return found
