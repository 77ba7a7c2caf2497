"""Which figures are compared, which way each is better, and how far it may move.

On one machine all but speed repeats to the bit. What may move without anything being wrong is rounding: another
order of a sum, by another kernel or processor. Its reach was measured, by the ci study run again with other vector
instructions (AVX2 in place of AVX-512): training losses agree to six digits up to step 10, and routed methods then
drift apart, by step 80 by 3 % in loss and 0.06 in the router's agreement. So the early loss curve is the sharp test of
whether the same is still computed, and figures of the trained model may move about twice as far as rounding took them.

That excuse holds only where training did round otherwise. Where a method's training losses, first to last, are the
same to the bit, its weights are too, and nothing explains that what is measured of them moved: a router that went dead
at evaluation, a predictor that training left out, a measure that sees the future. Then every figure of the method but
those of time and memory is held to REPEATED, whichever way it moves: a better figure of the same weights is a change
of how they are measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

Better = Literal["lower", "higher", "same"]

# A step is slower where medians differ by more than so much, and a one-sided Mann-Whitney test at that level finds that
# it is by more than so much: of samples taken in at least so many processes a side, the baseline's made so much longer.
# (A test of any difference is too easily passed. Where other processes fill the cores, some unchanged routed step reads
# 5 to 6 % slower beside the dense one, and steadily so.) The least p of six against six, 1 / 924, is below the level.
EFFECT, P, SAMPLES = 0.05, 0.005, 6

# Speed is compared where the machine was as fast as for the baseline, by a step of torch's own encoder, give or take so
# many times: others may fill it, and not all steps suffer alike. In the trials of `gate_proof` the encoder took (by the
# recorded step of dense and its ratio) 0.91 to 1.08 times as long as for the baseline on quiet cores, and 1.20 to 1.35
# times in the twelve reruns in which an unchanged routed step read 5 to 6 % slower beside dense.
PACE = 1.15

REPEATED = 1e-5  # how far a figure may move, as a share or a difference, where training repeated to the bit


@dataclass(frozen=True)
class Rule:
    """How far a figure may move: a share of the baseline, or a difference where not `relative`.

    An infinite tolerance asks no more than that the figure be there, and stay where training repeated to the bit.
    words: as people say it; `{}` stands for what the figure's name has in place of the pattern's `*`.
    better `same`: any move beyond the tolerance counts against it, whichever way.
    here: compared on the baseline's machine alone. sampled: by a test and an effect size. suspicious: a move for the
    better counts against it, too.
    """

    words: str
    better: Better
    tolerance: float = 0.0
    relative: bool = True
    here: bool = False
    sampled: bool = False
    suspicious: bool = False

    def after_same_training(self) -> Rule:
        """The rule of what is measured after a training that repeated to the bit."""
        timed = self.here or self.sampled
        return self if timed else replace(self, suspicious=True, tolerance=min(self.tolerance, REPEATED))


_SUM = 1e-9  # the same sum in another order
_EARLY = 2e-5  # training losses before rounding has been amplified, as written in steps.csv

# By `METHOD FIGURE`, or by figure; the first that matches. Expert choice at evaluation follows thresholds that have
# hardly settled in so short a run: rounding moved its loss by 19 %. Integrated MoDE spends what its routing says, and
# its schedule runs with that: rounding moved its learning rate by 2 %. One layer moves farther than the mean over
# layers: rounding moved its share of tokens by 0.18.
_RULES: dict[str, Rule] = {
    "expert_choice quality.val_loss_nats": Rule("held-out loss, nats a token", "lower", 0.3),
    "expert_choice quality.val_bpb": Rule("held-out loss, bits a byte", "lower", 0.3),
    "expert_choice lm_eval.*.bits_per_byte": Rule("{}: bits a byte", "lower", 0.3),
    "expert_choice routing.expert_load_cv": Rule("unevenness of expert load", "lower", 1.0),
    "model.params_total": Rule("parameters stored", "same"),
    "model.params_active": Rule("parameters a token meets", "same"),
    "model.*": Rule("the model’s {}", "same"),
    "flops.budget": Rule("budget of training FLOPs", "same", _SUM),
    "flops.parts.*": Rule("forward FLOPs a token, {}", "same", _SUM),
    "flops.six_n_per_token": Rule("training FLOPs a token, as 6 N", "same", _SUM),
    "flops.forward_per_token_causal": Rule("forward FLOPs a token, scores halved", "same", _SUM),
    "flops.forward_per_token": Rule("forward FLOPs a token", "same", _SUM),
    "flops.train_per_token": Rule("training FLOPs a token", "same", _SUM),
    "flops.moved_bytes_per_token": Rule("bytes moved by routing, a token", "same", _SUM),
    "flops.forward_analytic": Rule("forward FLOPs, analytic", "same", _SUM),
    "flops.forward_fvcore": Rule("forward FLOPs, by fvcore", "same", _SUM),
    "flops.forward_torch": Rule("forward FLOPs, by torch", "same", _SUM),
    "flops.train_total": Rule("training FLOPs executed", "same", 0.01),
    "training.steps": Rule("training steps", "same", 0.01),
    "training.tokens": Rule("training tokens", "same", 0.01),
    "training.lr": Rule("peak learning rate", "same", _SUM),
    "training.final_loss": Rule("training loss at the end", "lower", 0.05),
    "loss_curve.1": Rule("training loss, step 1", "same", _EARLY),
    "loss_curve.2": Rule("training loss, step 2", "same", _EARLY),
    "loss_curve.5": Rule("training loss, step 5", "same", _EARLY),
    "loss_curve.10": Rule("training loss, step 10", "same", _EARLY),
    "loss_curve.20": Rule("training loss, step 20", "same", 1e-3),
    "loss_curve.50": Rule("training loss, step 50", "same", 0.02),
    "mode/integrated lr_curve.*": Rule("learning rate, step {}", "same", 0.04),
    "lr_curve.*": Rule("learning rate, step {}", "same", 1e-3),
    "quality.val_loss_nats": Rule("held-out loss, nats a token", "lower", 0.03),
    "quality.val_loss_nats_noncausal": Rule("held-out loss by top-k (non-causal)", "lower", 0.05),
    "quality.val_bpb": Rule("held-out loss, bits a byte", "lower", 0.03),
    "quality.val_bpb_noncausal": Rule("held-out bits a byte by top-k (non-causal)", "lower", 0.05),
    "quality.tokens_evaluated": Rule("held-out tokens", "same"),
    "quality.documents_evaluated": Rule("held-out documents", "same"),
    "causality.tolerance": Rule("tolerance of the causality audit", "same"),
    "routing.predictor_accuracy": Rule("causal router’s agreement with top-k", "higher", 0.1, relative=False),
    "routing.fraction_processed": Rule("share of tokens processed", "same", 0.15, relative=False),
    "routing.predictor_accuracy_by_layer.*": Rule(
        "causal router’s agreement with top-k, layer {}", "higher", 0.15, relative=False
    ),
    "routing.fraction_processed_by_layer.*": Rule("share of tokens processed, layer {}", "same", 0.35, relative=False),
    "routing.expert_load_cv": Rule("unevenness of expert load", "lower", 0.6),
    "routing.noop_fraction": Rule("share of no-op choices", "same", 0.1, relative=False),
    "routing.causal_routers.*.accuracy": Rule("{}: agreement with top-k", "higher", 0.1, relative=False),
    "routing.causal_routers.*.fraction_processed": Rule("{}: share of tokens processed", "same", 0.15, relative=False),
    "routing.causal_routers.*.loss_over_topk": Rule("{}: loss over top-k’s, less 1", "lower", 0.05, relative=False),
    "routing.causal_routers.*.val_loss_nats": Rule("{}: held-out loss, nats a token", "lower", 0.03),
    "lm_eval.*.acc": Rule("{}: accuracy", "higher", 0.25, relative=False),
    "lm_eval.*.acc_norm": Rule("{}: accuracy, length-normalised", "higher", 0.25, relative=False),
    "lm_eval.*.bits_per_byte": Rule("{}: bits a byte", "lower", 0.03),
    "lm_eval.*.chance": Rule("{}: accuracy of a guess", "same"),
    "lm_eval.*.word_perplexity": Rule("{}: perplexity a word", "lower", math.inf),
    "lm_eval.*.byte_perplexity": Rule("{}: perplexity a byte", "lower", math.inf),
    "lm_eval.*": Rule("{}", "same", math.inf),
    "memory.peak_bytes": Rule("peak memory of a training step", "lower", 0.05, here=True),
    "speed.train_speedup_ideal": Rule("ideal speed-up of a training step", "same", _SUM),
    "speed.forward_speedup_ideal": Rule("ideal speed-up of a forward pass", "same", _SUM),
    "speed.decode.*.context": Rule("context that decoding starts from, batch {}", "same"),
    "speed.decode.*.steps": Rule("steps decoded, batch {}", "same"),
    "speed.decode.*.fraction_processed": Rule(
        "share of decoded tokens processed, batch {}", "same", 0.15, relative=False
    ),
    "speed.decode.*.kv_cache_held_bytes": Rule("keys and values held, batch {}", "lower", 0.3),
    "speed.decode.*.kv_cache_ratio": Rule("KV cache over dense’s, batch {}", "lower", 0.3),
    "speed.decode.*.kv_cache_bytes": Rule("KV cache allocated, batch {}", "lower", 0.3),
    "speed.decode.*.bytes_per_token": Rule("bytes read to decode a token, batch {}", "lower", _SUM),
    "speed.decode.*.flops_per_token": Rule("FLOPs to decode a token, batch {}", "same", _SUM),
    "speed.train_step_over_dense": Rule("training step over dense’s", "lower", EFFECT, here=True, sampled=True),
    "speed.train_step_over_torch": Rule("training step over torch’s encoder", "lower", EFFECT, here=True, sampled=True),
}  # fmt: skip

# Numbers of a record that no rule is for: names and settings; the uncertainty of a figure, which is its interval; the
# audit's finding, which its own tolerance judges; and times of which a study holds no samples to test.
_NOT_JUDGED = (
    "schema_version",
    "run.seed",
    "environment.threads",
    "*_stderr",
    "causality.max_abs_logit_change",
    "training.seconds",
    "energy.*",
    "speed.train_step_seconds.*",
    "speed.train_tokens_per_second",
    "speed.train_speedup_realised.*",
    "speed.flop_utilisation",
    "speed.matmul_flops_per_second",
    "speed.decode.*.batch_size",
    "speed.decode.*.tokens_per_second",
    "speed.decode.*.step_seconds.*",
    "speed.decode.*.step_seconds_p95",
    "speed.decode.*.first_token_seconds",
    "speed.decode.*.speedup_realised.*",
    "speed.decode.*.speedup_ideal",
    "speed.decode.*.roofline_share",
)
LOSS_CURVE = [int(name.split(".")[1]) for name in _RULES if name.startswith("loss_curve.")]
LR_CURVE = [*LOSS_CURVE, 80]  # past half of the ci study's runs, where the rate has fallen far


def judged(figure: str) -> bool:
    """Whether a number of a record is a figure at all, to be compared under a rule."""
    return not any(fnmatchcase(figure, pattern) for pattern in _NOT_JUDGED)


def rule_of(figure: str, method: str = "") -> Rule | None:
    """The rule of a figure, or of a method's, as METHOD[/VARIANT][,SEED]; None where it is not compared."""
    pattern = _pattern(figure, method)
    return _RULES[pattern] if pattern is not None else None


def words(figure: str) -> str:
    """A figure as people say it, with the task, router, layer, step or batch size that its name holds."""
    pattern = _pattern(figure)
    if pattern is None:
        return figure
    before, _, after = pattern.partition("*")
    return _RULES[pattern].words.format(figure[len(before) : len(figure) - len(after)])


def _pattern(figure: str, method: str = "") -> str | None:
    own = f"{method.partition(',')[0]} {figure}"
    return next((p for p in _RULES if p in (own, figure) or fnmatchcase(own if " " in p else figure, p)), None)
