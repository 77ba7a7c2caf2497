"""The popular claims about Mixture-of-Depths, each beside what the study measured of it, and the verdict.

Each 95 % interval agrees with the claim (all of it lies where the claim puts it), contradicts it (all of it lies
elsewhere), or neither. A claim holds here where all of its intervals agree, and does not where more than half
contradict; otherwise it cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.fit.parabolas import Estimate
from bench.report.formats import percent, power, scaled, signed, times, with_interval
from bench.report.isoflop.curves import Comparison, Parity
from bench.report.isoflop.results import Results
from bench.report.isoflop.seeds import SeedDifference, best_difference, difference

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
    harder = "several seeds and larger models, other text; and an intervention, for this is a correlation"
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
            "A small predictor agrees with top-k on 97 % of tokens and more (always skipping: 87.5 %).", PAPER,
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
            f"Sampling steps are upwards of 50 % faster{_decoded(results)}.", PAPER, *_verdict(_decoding(results)),
            "a GPU, with a kernel that skips rows without a launch for each",
        ),
        Claim(
            "Hard tokens get more depth.", POPULAR, *_verdict(_difficulty(results, others_equal=False)), harder,
        ),
        Claim(
            "Hard tokens get more depth than others of their position, frequency and kind.", POPULAR,
            *_verdict(_difficulty(results, others_equal=True)), harder,
        ),
        Claim(
            "It holds past 1 B parameters.", POPULAR,
            f"the largest model here has {scaled(float(results.runs['params_total'].max()))} parameters", OPEN,
            "the study paper, or anything near it",
        ),
    ]  # fmt: skip
    return found


def _verdict(evidence: Sequence[Evidence], all_of: bool = True) -> tuple[str, str]:
    """What was measured, and what it says of the claim; `all_of` False: of one about the best case."""
    if not evidence:
        return "not measured", OPEN
    answers = [each.speaks for each in evidence]
    agree, contradict = answers.count(True), answers.count(False)
    told = "; ".join(each.told for each in evidence)
    if len(evidence) > 1:
        told = f"{agree} of {len(evidence)} agree, {contradict} contradict: {told}"
    if agree == len(evidence) or (agree and not all_of):
        return told, HOLDS
    return told, FAILS if 2 * contradict > len(evidence) and (all_of or contradict == len(evidence)) else OPEN


def _beyond(value: Estimate | SeedDifference, limit: float) -> bool | None:
    """Whether all of the interval is below `limit`; False: all of it is above; None: neither, or no interval."""
    if value.low is None or value.high is None:
        return None
    return True if value.high < limit else False if value.low > limit else None


def _interval(value: Estimate | SeedDifference, write: Callable[[float], str]) -> str:
    text = with_interval(value.value, value.low, value.high, write)
    return text if value.low is not None else f"{text} (no interval)"


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


def _compounding(results: Results) -> list[Evidence]:
    found = []
    mode = next((name for name in results.methods if name.startswith("mode")), None)
    for budget in results.budgets:
        for other in ("moe", _METHOD):
            if mode is None or other not in results.methods:
                continue
            value = best_difference(results, mode, other, budget)
            if value is not None:
                told = f"{mode} minus {other} at {power(budget)} FLOPs {_interval(value, signed)} nats"
                found.append(Evidence(told, _beyond(value, 0.0)))
    return found


def _control_difference(results: Results, own: str, other: str) -> SeedDifference | None:
    """Mean loss over seeds, `own` minus `other`; both are queries on the runs."""
    return difference(results, *(results.runs.query(words).drop_duplicates("seed") for words in (own, other)))


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


def _mean(values: np.ndarray) -> Estimate:
    """Mean over runs, with its t interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def _accuracy(results: Results, at_least: float) -> list[Evidence]:
    found = []
    for budget in results.budgets:
        own = results.cell(_METHOD, budget)["accuracy"].dropna().to_numpy(dtype=float)
        if len(own):
            value = _mean(own)
            below = _beyond(value, at_least)
            told = f"{len(own)} runs at {power(budget)} FLOPs {_interval(value, percent)}, lowest {percent(own.min())}"
            found.append(Evidence(told, None if below is None else not below))
    return found


def _cost_of_causality(results: Results, at_most: float) -> list[Evidence]:
    found = []
    for budget in results.budgets:
        own = results.cell(_METHOD, budget).dropna(subset=["loss_noncausal"])
        if len(own):
            value = _mean((own["loss"] / own["loss_noncausal"] - 1).to_numpy(dtype=float))
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


def _decoded(results: Results) -> str:
    """Of what model; the decode study has one of its own."""
    shape = results.decode.shape if results.decode else {}
    return f" (study decode, {shape['n_layers']} × {shape['d_model']})" if {"n_layers", "d_model"} <= set(shape) else ""


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


def _difficulty(results: Results, others_equal: bool) -> list[Evidence]:
    """Of the number of blocks that process a token with what the dense model finds hard about predicting the next."""
    study = results.study.tokens
    use = study.depth.get(_METHOD) if study else None
    if use is None:
        return []
    found = []
    for each in use.correlations:
        hard = each.covariate in ("loss of the next token", "entropy of the next token")
        if each.layer == "all" and hard and (each.given != "none") == others_equal:
            sign = True if each.low > 0 else False if each.high < 0 else None
            told = f"rank correlation with the {each.covariate}: {signed(each.rho)}"
            found.append(
                Evidence(f"{told} ({signed(each.low)} to {signed(each.high)})", sign if each.p < 0.05 else None)
            )
    return found
