"""The claims themselves: each with its source, the analysis it is held to, and what would settle it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.formats import decimal, scaled
from bench.isoflop.analysis.claim_costs import decoded_model, decoding, energy, ratio, within
from bench.isoflop.analysis.claim_losses import against_dense, better_than_parts, more_than_the_sum, saved_compute
from bench.isoflop.analysis.claim_routers import (
    METHOD,
    agreement_with_top_k,
    cost_of_causality,
    difficulty,
    learned_against_random,
    predictor_against_bce,
    smallest_capacity,
)  # fmt: skip
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.evidence import OPEN, Evidence, best_of_all, everywhere, somewhere, told
from bench.isoflop.analysis.iso_loss import Parity
from bench.isoflop.analysis.results import Results
from bench.stats.fits import Fits

PAPER = "Raposo et al. 2024, arXiv 2404.02258"
POPULAR = "popular accounts of that paper"

CURVES = "by curves over forward FLOPs"
BOTH = f"{CURVES} and by best shapes, on seeds that chose none of them, which must agree"
SEEDS = "by best shapes, on seeds that chose none of them"
STEPS = f"{CURVES} and steps timed alone"
RUNS = "by all runs of a budget"
UNTESTED = "not tested here"


@dataclass(frozen=True)
class Claim:
    """`by`: the analysis; `measured`: in words, with intervals; `settles`: what would settle it, or at scale."""

    text: str
    source: str
    by: str
    measured: str
    verdict: str
    settles: str


def claims(results: Results, compared: Sequence[Comparison], parities: Sequence[Parity], fits: Fits) -> list[Claim]:
    """Every claim, and what the study has to say about it."""
    equal_flops = [c for c in compared if c.contract == "train_flops" and c.method == METHOD]
    parity = [p for p in parities if p.method == METHOD]
    larger = "isoflop_h200 (1e15 to 3e16 FLOPs a run), then the paper’s own grid (study paper)"
    return [
        Claim(
            "Better loss than dense at equal training FLOPs, both at their best size.", PAPER, BOTH,
            *everywhere([against_dense(results, c, limit=0.0) for c in equal_flops]), larger,
        ),
        Claim(
            "Up to 1.5 % better loss at equal training FLOPs (held to one budget at least).", PAPER,
            f"{BOTH}; one budget is enough, and of several one agrees by luck more often than one alone would",
            *somewhere([against_dense(results, c, limit=-0.015, relative=True) for c in equal_flops]), larger,
        ),
        Claim(
            "About 40 % of compute is saved: dense needs 1.67 times the training FLOPs for the same loss.", POPULAR,
            "by curves over stored parameters", *everywhere(saved_compute(results, fits, METHOD)), larger,
        ),
        Claim(
            "A model equal to the isoFLOP-optimal baseline needs about half the FLOPs per forward pass (0.6 and less).",
            PAPER, CURVES, *everywhere([ratio(p, p.forward_flops, at_most=0.6) for p in parity]), larger,
        ),
        Claim(
            "Such a model steps more than 60 % faster (a step in 1 / 1.6 of the time).", PAPER, STEPS,
            *everywhere([ratio(p, p.step_time, at_most=1 / 1.6) for p in parity]),
            "a GPU: on this machine a small step is mostly overhead, not FLOPs",
        ),
        Claim(
            "The best size spends about the baseline’s FLOPs per forward pass (within a quarter).", PAPER, CURVES,
            *everywhere([within(p.budget, p.optimum_flops, 0.8, 1.25) for p in parity]), larger,
        ),
        Claim(
            "Gains of depth and experts compound: MoDE is better than MoE and than MoD.", PAPER, SEEDS,
            *everywhere(better_than_parts(results)), larger,
        ),
        Claim(
            "They add up: MoDE’s gain over dense is the sum of MoE’s and MoD’s, or more.", f"{PAPER}, read strictly",
            SEEDS,
            *everywhere(more_than_the_sum(results)), f"more seeds, then {larger}",
        ),
        Claim(
            "A learned router beats a random one.", PAPER, SEEDS, *everywhere(learned_against_random(results)),
            "more seeds; larger models",
        ),
        Claim(
            "12.5 % is the best capacity of those from 12.5 to 95 %.", PAPER,
            f"{SEEDS}; holds where it is better than each other one, and does not where one is better in an interval "
            "that is 95 % for all of them together (Bonferroni)",
            *best_of_all(smallest_capacity(results)), "a grid of sizes and a learning rate for each capacity",
        ),
        Claim(
            "A small predictor agrees with top-k on 97 % of tokens and more (always skipping: 87.5 %).", PAPER, RUNS,
            *_measured_here(agreement_with_top_k(results, 0.97)),
        ),
        Claim(
            "Routing by that predictor costs next to no loss (0.5 % and less over top-k).", PAPER, RUNS,
            *_measured_here(cost_of_causality(results, 0.005)),
        ),
        Claim(
            "The other causal router (BCE on the router itself) costs loss: it is worse than the predictor.", PAPER,
            SEEDS, *everywhere(predictor_against_bce(results)), "more seeds",
        ),
        Claim(
            f"Sampling steps are upwards of 50 % faster{decoded_model(results)}.", PAPER,
            "by steps decoded in turn; the paper’s models are of equal quality, these of equal shape",
            *everywhere(decoding(results, METHOD, 1.5)),
            "a GPU, with a kernel that skips rows without a launch for each; models of equal loss",
        ),
        Claim(
            "Hard tokens get more depth.", POPULAR,
            "by rank correlations over held-out tokens of one model, one seed, which cannot tell of others; both as it "
            "is and at equal position, frequency and kind (taken out of the ranks by least squares); one counts where "
            "its p, adjusted for the number of tests of the model (Holm), is below 0.05",
            told(difficulty(results)), OPEN,
            "several seeds and larger models, other text; and an intervention, for this is a correlation",
        ),
        Claim(
            "It takes less energy.", POPULAR, "by the machine’s counter, of runs that had it to themselves",
            *_energy(results), "the same runs one at a time on a machine with a counter of energy",
        ),
        Claim(
            "Integrated MoDE is better than MoE of less expert capacity.", PAPER, UNTESTED,
            _integrated(results), OPEN, "MoE with capacity cut to equal FLOPs, beside integrated MoDE",
        ),
        Claim(
            "Routing every other block is better than routing every block.", PAPER, UNTESTED,
            "every MoD here routes every other block", OPEN, "the same shapes with method.depth.every=1",
        ),
        Claim(
            "A MoD model had better grow in depth than in width.", PAPER, UNTESTED,
            "along the ladder of shapes depth and width grow together", OPEN,
            "shapes of equal forward FLOPs, some deep and some wide, at one budget",
        ),
        Claim(
            "It holds past 1 B parameters.", POPULAR, UNTESTED,
            f"the largest model here has {scaled(float(results.runs['params_total'].max()))} parameters", OPEN,
            "the study paper, or anything near it",
        ),
    ]  # fmt: skip


def _measured_here(evidence: Sequence[Evidence]) -> tuple[str, str, str]:
    """Measured, verdict, and what would settle it, where that needs no larger scale but only enough runs."""
    measured, verdict = everywhere(evidence)
    if verdict == OPEN:
        return measured, verdict, "more runs; larger models may differ"
    return measured, verdict, "it is settled where it was measured; larger models may differ"


def _energy(results: Results) -> tuple[str, str]:
    measured = energy(results, METHOD)
    return everywhere(measured) if measured else ("not measured here: no run has a reading of its own", OPEN)


def _integrated(results: Results) -> str:
    """What there is of it: without the other side of the comparison, no evidence."""
    losses = results.runs.loc[results.runs["method"] == "mode (integrated)", "loss"]
    mean = decimal(float(losses.mean())) if len(losses) else ""
    was = f"integrated MoDE was run as a control, at staged MoDE’s shape and learning rate (mean loss {mean}); "
    return f"{was if mean else ''}no MoE with less expert capacity was run"
