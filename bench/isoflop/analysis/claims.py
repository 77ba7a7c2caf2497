"""The claims: each with its source, the analysis that tests it, its verdict and the next experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.formats import decimal, scaled
from bench.isoflop.analysis.evidence import (
    Evidence,
    better,
    better_by,
    better_than_parts,
    counts,
    decoding,
    energy,
    everywhere,
    more_than_the_sum,
    of_all,
    ratio,
    saved_compute,
    where,
    within,
)
from bench.isoflop.analysis.iso_loss import IsoLoss
from bench.isoflop.analysis.results import Results
from bench.isoflop.analysis.routers import (
    METHOD,
    agreement_with_top_k,
    cost_of_causality,
    difficulty,
    learned_against_random,
    predictor_against_bce,
    smallest_capacity,
)
from bench.isoflop.analysis.verdicts import Against
from bench.stats.fits import Fits
from bench.stats.verdict import Mark

PAPER = "Raposo et al. 2024, arXiv 2404.02258"
POPULAR = "popular accounts of that paper"

CURVES = "curves, budget by budget"  # minima of parabolas over forward FLOPs
SEEDS = "seeds"  # best shapes, on seeds not used for model selection
POOLED = "seeds, pooled over budgets"
_LISTED = 6  # pieces of evidence that a claim spells out
_LARGER = "studies isoflop_h200, paper"


@dataclass(frozen=True)
class Claim:
    """`analysis`: what tests it; `measured`: the evidence in words, with intervals."""

    text: str
    source: str
    analysis: str
    measured: str
    verdict: Mark
    next_experiment: str
    evidence: Sequence[Evidence] = field(default=(), repr=False)


def claims(results: Results, against: Sequence[Against], matched: Sequence[IsoLoss], fits: Fits) -> list[Claim]:
    """Every claim, with the study's evidence."""
    verdict = next((each for each in against if each.method == METHOD), None)
    own = [m for m in matched if m.method == METHOD]
    causal = "larger models"
    decoded = decoding(results, METHOD, 1.5)
    return [
        _tested(
            "Better loss than dense at equal training FLOPs, both at their best size.", PAPER, POOLED,
            better(verdict), f"more seeds; {_LARGER}",
        ),
        _tested(
            "Up to 1.5 % better loss at equal training FLOPs.", PAPER, f"{POOLED}; 1.5 % or more",
            better_by(verdict, 0.015), f"more seeds; {_LARGER}",
        ),
        _tested(
            "About 40 % of compute is saved: dense needs 1.67 times the training FLOPs for the same loss.", POPULAR,
            "curves over total parameters", saved_compute(results, fits, METHOD), _LARGER,
        ),
        _tested(
            "A model with the baseline’s best loss needs at most 0.6 of its FLOPs per forward pass.", PAPER, CURVES,
            [ratio(m, m.forward_flops, at_most=0.6) for m in own], _LARGER,
        ),
        _tested(
            "Such a model steps more than 60 % faster (step time at most 0.625 of dense’s).", PAPER,
            "curves and step times", [ratio(m, m.step_time, at_most=1 / 1.6) for m in own],
            "a GPU; here overhead dominates small steps",
        ),
        _tested(
            "The best size spends the baseline’s FLOPs per forward pass, to within a quarter.", PAPER, CURVES,
            [within(m.budget, m.optimum_flops, 0.8, 1.25) for m in own], _LARGER,
        ),
        _tested(
            "Gains of depth and experts compound: MoDE is better than MoE and than MoD.", PAPER, POOLED,
            better_than_parts(results), _LARGER, of_all,
        ),
        _tested(
            "They add up: MoDE’s gain over dense is the sum of MoE’s and MoD’s, or more.", f"{PAPER}, read strictly",
            POOLED, more_than_the_sum(results), f"more seeds; {_LARGER}",
        ),
        _tested(
            "A learned router beats a random one.", PAPER, f"{SEEDS}, mean over capacities",
            learned_against_random(results), "more seeds; larger models",
        ),
        _tested(
            "12.5 % is the best capacity of those from 12.5 to 95 %.", PAPER,
            f"{SEEDS}; all capacities together (Holm)",
            smallest_capacity(results), "sizes and learning rates for each capacity", of_all,
        ),
        _tested(
            "A small predictor agrees with top-k on 97 % of tokens and more (always skipping: 87.5 %).", PAPER,
            "all runs", agreement_with_top_k(results, 0.97), causal,
        ),
        _tested(
            "Routing by that predictor costs at most 0.5 % of the loss with top-k.", PAPER, "all runs",
            cost_of_causality(results, 0.005), causal,
        ),
        _tested(
            "The other causal router (BCE on the router itself) is worse than the predictor.", PAPER, SEEDS,
            predictor_against_bce(results), "more seeds",
        ),
        Claim(
            f"Sampling steps are more than 50 % faster{decoded_model(results)}.", PAPER,
            "decoding steps timed alternately, at equal shape; depends on batch and context: one setting contradicts",
            where(decoded) if decoded else "not measured", of_all(decoded),
            "a GPU with fused row skipping; models of equal loss", decoded,
        ),
        _tested(
            "Hard tokens get more depth.", POPULAR,
            "rank correlations with the next token; models are the units",
            difficulty(results), "more seeds of trained models, which costs no training; an intervention",
        ),
        _tested(
            "It takes less energy.", POPULAR, "the machine’s energy counter", energy(results, METHOD),
            "runs one at a time on a machine with an energy counter",
        ),
        _untested(
            "Integrated MoDE is better than MoE of less expert capacity.", PAPER, _integrated(results),
            "MoE with capacity cut to equal FLOPs",
        ),
        _untested(
            "Routing every other block is better than routing every block.", PAPER,
            "every MoD here routes every other block", "method.depth.every=1 at the same shapes",
        ),
        _untested(
            "MoD should grow in depth rather than in width.", PAPER, "depth and width grow together in this grid",
            "deep and wide shapes, equal forward FLOPs",
        ),
        _untested(
            "It holds past 1 B parameters.", POPULAR,
            f"the largest model here has {scaled(float(results.runs['params_total'].max()))} parameters",
            "study paper",
        ),
    ]  # fmt: skip


def decoded_model(results: Results) -> str:
    """The shape of the decode study's models, in words; or empty."""
    shape = results.decode.shape if results.decode else {}
    if not {"n_layers", "d_model"} <= set(shape):
        return ""
    return f" (study decode, {shape['n_layers']} × {shape['d_model']}, dense of equal shape)"


def _tested(
    text: str, source: str, analysis: str, evidence: Sequence[Evidence], next_experiment: str,
    rule: Callable[[Sequence[Evidence]], Mark] = everywhere,
) -> Claim:  # fmt: skip
    return Claim(text, source, analysis, _measured(evidence), rule(evidence), next_experiment, evidence)


def _untested(text: str, source: str, measured: str, next_experiment: str) -> Claim:
    return Claim(text, source, "none", measured, Mark.NOT_TESTED, next_experiment)


def _measured(evidence: Sequence[Evidence]) -> str:
    """The evidence in words, counted where there is more than one piece."""
    if not evidence:
        return "not measured"
    if len(evidence) == 1:
        return evidence[0].text
    supporting, contradicting = counts(evidence)
    texts = [each.text for each in evidence]
    listed = f"from {texts[0]} to {texts[-1]}" if len(texts) > _LISTED else "; ".join(texts)
    against = f", {contradicting} contradict" if contradicting else ""
    return f"{supporting} of {len(evidence)} support{against}: {listed}"


def _integrated(results: Results) -> str:
    """Without the other side of the comparison there is no evidence."""
    losses = results.runs.loc[results.runs["method"] == "mode/integrated", "loss"]
    was = f"integrated MoDE ran as an ablation (mean loss {decimal(float(losses.mean()))}); " if len(losses) else ""
    return f"{was}no MoE with less expert capacity"
