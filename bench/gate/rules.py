"""Which figures are compared, which direction is better, and how far each may move.

On one machine everything except speed repeats bit for bit. Rounding alone may move a figure: another kernel or
processor sums in another order. Its effect was measured by re-running the ci study with other vector instructions (AVX2
instead of AVX-512). Training losses agree to six digits up to step 10. Routed methods then drift apart: by step 80, 3 %
in loss and 0.06 in router accuracy. So the early loss curve is the sharp test that the computation is unchanged, and
figures of the trained model may move about twice as far as rounding moved them.

That allowance holds only if training rounded differently. If all training losses of a method are bitwise equal,
so are its weights, and no figure measured on them may move: a router that fails at evaluation, a predictor left out
of training, a metric that sees the future. Then every figure of the method except time and memory gets the tolerance
REPEATED, in both directions: a better figure of the same weights means that the measurement changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

Better = Literal["lower", "higher", "same"]

# A step is slower if medians differ by more than EFFECT and a one-sided Mann-Whitney test at level P finds a
# difference larger than EFFECT: the test compares with the baseline's samples times 1 + EFFECT. It needs SAMPLES
# processes per side; the least p of six against six, 1 / 924, is below P. A test for any difference fails too easily:
# on busy cores an unchanged routed step reads 5 to 6 % slower relative to dense, and consistently so.
EFFECT, P, SAMPLES = 0.05, 0.005, 6

# Speed is compared only if the machine was as fast as for the baseline, to within this factor, by a step of torch's own
# encoder: other load slows some steps more than others. In the trials of tools/gate_validation the encoder took 0.91 to
# 1.08 times as long as for the baseline on quiet cores, and 1.20 to 1.35 times in the twelve unchanged re-runs in which
# a routed step read 5 to 6 % slower relative to dense.
PACE = 1.15

REPEATED = 1e-5  # tolerance, relative or absolute, if training repeated bit for bit


@dataclass(frozen=True)
class Rule:
    """How far a figure may move: a share of the baseline, or an absolute difference if not `relative`.

    An infinite tolerance only requires the figure to exist, and to be unchanged if training repeated bit for bit.
    words: the name for people; `{}` stands for what `*` matches in the figure's name.
    better `same`: a change beyond the tolerance fails in either direction.
    here: compared only on the baseline's machine. sampled: compared by a test and an effect size.
    suspicious: a change for the better fails too.
    """

    words: str
    better: Better
    tolerance: float = 0.0
    relative: bool = True
    here: bool = False
    sampled: bool = False
    suspicious: bool = False

    def after_same_training(self) -> Rule:
        """The rule for figures measured after a training that repeated bit for bit."""
        timed = self.here or self.sampled
        return self if timed else replace(self, suspicious=True, tolerance=min(self.tolerance, REPEATED))


_delta = partial(Rule, relative=False)
_timed = partial(Rule, better="lower", tolerance=EFFECT, here=True, sampled=True)
_SUM = 1e-9  # the same sum in another order
_EARLY = 2e-5  # training losses before rounding is amplified, as written in steps.csv

# By `METHOD FIGURE` or by figure; the first match counts. Expert choice evaluates with thresholds that barely settle in
# so short a run: rounding moved its loss by 19 %. The schedule of integrated MoDE follows the FLOPs that its routing
# spends: rounding moved its learning rate by 2 %. A single layer moves farther than the mean over layers: rounding
# moved its fraction of tokens by 0.18.
_RULES: dict[str, Rule] = {
    "expert_choice quality.val_loss_nats": Rule("validation loss, nats/token", "lower", 0.3),
    "expert_choice quality.val_bpb": Rule("validation loss, bits/byte", "lower", 0.3),
    "expert_choice lm_eval.*.bits_per_byte": Rule("{}: bits/byte", "lower", 0.3),
    "expert_choice routing.expert_load_cv": Rule("expert load imbalance (CV)", "lower", 1.0),
    "model.params_total": Rule("total parameters", "same"),
    "model.params_active": Rule("active parameters", "same"),
    "model.*": Rule("the model’s {}", "same"),
    "flops.budget": Rule("training FLOPs budget", "same", _SUM),
    "flops.parts.*": Rule("forward FLOPs/token, {}", "same", _SUM),
    "flops.six_n_per_token": Rule("training FLOPs/token, as 6ND", "same", _SUM),
    "flops.forward_per_token_causal": Rule("forward FLOPs/token, causal-halved attention", "same", _SUM),
    "flops.forward_per_token": Rule("forward FLOPs/token", "same", _SUM),
    "flops.backward_per_token": Rule("backward FLOPs/token", "same", _SUM),
    "flops.train_per_token": Rule("training FLOPs/token", "same", _SUM),
    "flops.moved_bytes_per_token": Rule("routing traffic, bytes/token", "same", _SUM),
    "flops.forward_analytic": Rule("forward FLOPs, analytic", "same", _SUM),
    "flops.forward_fvcore": Rule("forward FLOPs, by fvcore", "same", _SUM),
    "flops.forward_torch": Rule("forward FLOPs, by torch", "same", _SUM),
    "flops.train_analytic": Rule("forward and backward FLOPs, analytic", "same", _SUM),
    "flops.train_torch": Rule("forward and backward FLOPs, by torch", "same", _SUM),
    "flops.train_total": Rule("training FLOPs executed", "same", 0.01),
    "training.steps": Rule("training steps", "same", 0.01),
    "training.tokens": Rule("training tokens", "same", 0.01),
    "training.lr": Rule("peak learning rate", "same", _SUM),
    "training.final_loss": Rule("final training loss", "lower", 0.05),
    "loss_curve.1": Rule("training loss, step 1", "same", _EARLY),
    "loss_curve.2": Rule("training loss, step 2", "same", _EARLY),
    "loss_curve.5": Rule("training loss, step 5", "same", _EARLY),
    "loss_curve.10": Rule("training loss, step 10", "same", _EARLY),
    "loss_curve.20": Rule("training loss, step 20", "same", 1e-3),
    "loss_curve.50": Rule("training loss, step 50", "same", 0.02),
    "mode/integrated lr_curve.*": Rule("learning rate, step {}", "same", 0.04),
    "lr_curve.*": Rule("learning rate, step {}", "same", 1e-3),
    "quality.val_loss_nats": Rule("validation loss, nats/token", "lower", 0.03),
    "quality.val_loss_nats_noncausal": Rule("validation loss with top-k (non-causal)", "lower", 0.05),
    "quality.val_bpb": Rule("validation loss, bits/byte", "lower", 0.03),
    "quality.val_bpb_noncausal": Rule("validation bits/byte with top-k (non-causal)", "lower", 0.05),
    "quality.tokens_evaluated": Rule("validation tokens", "same"),
    "quality.documents_evaluated": Rule("validation documents", "same"),
    "causality.tolerance": Rule("tolerance of the causality audit", "same"),
    "routing.predictor_accuracy": _delta("causal router’s agreement with top-k", "higher", 0.1),
    "routing.fraction_processed": _delta("fraction of tokens processed", "same", 0.15),
    "routing.predictor_accuracy_by_layer.*": _delta("causal router’s agreement with top-k, layer {}", "higher", 0.15),
    "routing.fraction_processed_by_layer.*": _delta("fraction of tokens processed, layer {}", "same", 0.35),
    "routing.expert_load_cv": Rule("expert load imbalance (CV)", "lower", 0.6),
    "routing.noop_fraction": _delta("fraction of null-expert choices", "same", 0.1),
    "routing.causal_routers.*.accuracy": _delta("{}: agreement with top-k", "higher", 0.1),
    "routing.causal_routers.*.fraction_processed": _delta("{}: fraction of tokens processed", "same", 0.15),
    "routing.causal_routers.*.loss_over_topk": _delta("{}: relative loss increase over top-k", "lower", 0.05),
    "routing.causal_routers.*.val_loss_nats": Rule("{}: validation loss, nats/token", "lower", 0.03),
    "lm_eval.*.acc": _delta("{}: accuracy", "higher", 0.25),
    "lm_eval.*.acc_norm": _delta("{}: accuracy, length-normalised", "higher", 0.25),
    "lm_eval.*.bits_per_byte": Rule("{}: bits/byte", "lower", 0.03),
    "lm_eval.*.chance": Rule("{}: chance accuracy", "same"),
    "lm_eval.*.word_perplexity": Rule("{}: word perplexity", "lower", math.inf),
    "lm_eval.*.byte_perplexity": Rule("{}: byte perplexity", "lower", math.inf),
    "lm_eval.*": Rule("{}", "same", math.inf),
    "memory.peak_bytes": Rule("peak memory of a training step", "lower", 0.05, here=True),
    "speed.executed_flops_per_token": Rule("FLOPs/token that a training step executes", "same", 0.05),
    "speed.train_speedup_ideal": Rule("ideal speed-up of a training step", "same", _SUM),
    "speed.forward_speedup_ideal": Rule("ideal speed-up of a forward pass", "same", _SUM),
    "speed.decode.*.context": Rule("context at the start of decoding, batch {}", "same"),
    "speed.decode.*.steps": Rule("decoding steps, batch {}", "same"),
    "speed.decode.*.fraction_processed": _delta("fraction of decoded tokens processed, batch {}", "same", 0.15),
    "speed.decode.*.kv_cache_held_bytes": Rule("KV cache in use, batch {}", "lower", 0.3),
    "speed.decode.*.kv_cache_ratio": Rule("KV cache relative to dense, batch {}", "lower", 0.3),
    "speed.decode.*.kv_cache_bytes": Rule("KV cache allocated, batch {}", "lower", 0.3),
    "speed.decode.*.bytes_per_token": Rule("decoding traffic, bytes/token, batch {}", "lower", _SUM),
    "speed.decode.*.flops_per_token": Rule("decoding FLOPs/token, batch {}", "same", _SUM),
    "speed.train_step_over_dense": _timed("training step time relative to dense"),
    "speed.train_step_over_torch": _timed("training step time relative to torch’s encoder"),
}  # fmt: skip

# Numbers of a record that are not figures: names and settings; standard errors, which become intervals; the audit's
# result, which has a tolerance of its own; the size of the text, which its fingerprint covers; and times without
# samples to test.
_NOT_FIGURES = (
    "schema_version",
    "run.seed",
    "environment.threads",
    "*_stderr",
    "causality.max_abs_logit_change",
    "causality.by_pass.*",
    "causality.positions",
    "causality.worst_row",
    "causality.worst_position",
    "causality.rolling_difference",
    "training.seconds",
    "training.passes",
    "corpus.*",
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
LR_CURVE = [*LOSS_CURVE, 80]  # past the middle of the ci study's runs, where the rate has fallen far


def is_figure(number: str) -> bool:
    """Whether a number of a record, by its name, is a figure to be compared under a rule."""
    return not any(fnmatchcase(number, pattern) for pattern in _NOT_FIGURES)


def rule_of(figure: str, method: str = "") -> Rule | None:
    """The rule of a figure, for a method as METHOD[/VARIANT][,SEED]; None if there is none."""
    pattern = _pattern(figure, method)
    return _RULES[pattern] if pattern is not None else None


def words(figure: str) -> str:
    """A figure's name for people, with the task, router, layer, step or batch size in its recorded name."""
    pattern = _pattern(figure)
    if pattern is None:
        return figure
    before, _, after = pattern.partition("*")
    return _RULES[pattern].words.format(figure[len(before) : len(figure) - len(after)])


def _pattern(figure: str, method: str = "") -> str | None:
    own = f"{method.partition(',')[0]} {figure}"
    return next((p for p in _RULES if p in (own, figure) or fnmatchcase(own if " " in p else figure, p)), None)
