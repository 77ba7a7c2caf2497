"""The dry run: prints what a run would be, and trains nothing."""

from __future__ import annotations

from bench.config.identity import MethodId
from bench.config.schema import RunConfig
from bench.data.corpus import Extent, extent
from bench.data.tokenizer import vocabulary_size
from bench.evaluate import check_tasks
from bench.flops.match import Plan
from bench.formats import aligned, binary, duration
from bench.measure.machine import make_machine
from bench.methods.registry import layer_count
from bench.model.block import feed_forward_width
from bench.runs.prepared import PreparedRun, prepare_run

# Bytes of activations kept for the backward pass, per token and layer, in multiples of d_model and d_ff. Counted
# on this decoder: norms, projections, attention and the residual stream keep 12 d_model, SwiGLU keeps 4 d_ff.
_KEPT_D_MODEL, _KEPT_D_FF = 12, 4
# And per token, in multiples of the vocabulary: logits, their log-softmax, and the gradient of each.
_KEPT_LOGITS = 4
ASSUMED_UTILISATION = 0.5


def describe(config: RunConfig) -> str:
    """Parameters, FLOPs, steps, tokens, and estimates of time and memory, for the method and its dense baseline."""
    check_tasks(config.evaluate)
    known = extent(config.data)
    own = prepare_run(config, known.vocab_size if known else None)
    text = known.train_tokens if known else None
    for run in (own.baseline, own):
        if run is not None:
            run.check_whole_steps()
    rate = make_machine(config).matmul_flops
    if own.baseline is None:
        columns = [["", *_FIGURES], ["dense", *_figures(own, own, rate, text)]]
    else:
        name = MethodId.of(config.method).title
        columns = [["", *_FIGURES], ["dense baseline", *_figures(own.baseline, own.baseline, rate, text)]]
        columns.append([name, *_figures(own, own.baseline, rate, text)])
    table = "\n".join(aligned(list(zip(*columns, strict=True))))
    note = f"Time: this machine's matrix products run at {rate / 1e9:,.0f} GFLOP/s; half of it is assumed."
    return f"contract {config.contract.name}\n{table}\n{_text(config, known)}\n{note} Nothing was trained."


def _text(config: RunConfig, known: Extent | None) -> str:
    """What is known of the text, as a sentence."""
    if known is not None:
        return f"Text: {known.train_tokens:,} training tokens, a vocabulary of {known.vocab_size:,}."
    at_most = "at most " if config.data.tokenizer.kind == "bpe" else ""
    size = f"{at_most}{vocabulary_size(config.data.tokenizer):,}"
    return f"Text: not read, because that takes longer; the plan is for a vocabulary of {size}."


_FIGURES = (
    "parameters", "active parameters", "layers", "d_model x d_ff", "forward FLOPs/token", "training FLOPs/token",
    "steps", "tokens", "passes over the text", "training FLOPs", "forward FLOPs over dense's",
    "training time (estimate)", "training memory (at most)",
)  # fmt: skip


def _figures(run: PreparedRun, dense: PreparedRun, rate: float, text: int | None) -> list[str]:
    """The cells of `_FIGURES`, in their order. rate: FLOP/s of the machine's matrix products. text: its tokens."""
    solved, count = run.plan, run.plan.count
    return [
        f"{count.params_total:,}",
        f"{count.params_active:,}",
        f"{layer_count(solved.model, run.config.method)}",
        f"{solved.model.d_model} x {feed_forward_width(solved.model)}",
        f"{count.forward:,.0f}",
        f"{count.train:,.0f}",
        f"{solved.steps:,}",
        f"{solved.tokens:,}",
        f"{solved.tokens / text:.3g}" if text else "unknown",
        f"{solved.steps * solved.step_flops:.4g}",
        f"{count.forward / dense.plan.count.forward:.4f}",
        duration(solved.budget_flops / rate / ASSUMED_UTILISATION),
        binary(training_memory(solved, run.config, run.vocab_size)),
    ]


def training_memory(p: Plan, config: RunConfig, vocab_size: int | None = None) -> float:
    """Weights, gradients, two AdamW moments, and one micro-batch's activations and logits in float32.

    vocab_size: that of the plan; None: the configured one. An upper bound: as if nothing were skipped, and all were
    allocated at once.
    """
    rows = config.train.micro_batch_size or config.train.batch_size
    layers = layer_count(p.model, config.method)
    kept = layers * (_KEPT_D_MODEL * p.model.d_model + _KEPT_D_FF * feed_forward_width(p.model))
    logits = _KEPT_LOGITS * (vocab_size or vocabulary_size(config.data.tokenizer))
    return 16 * p.count.params_total + 4 * rows * p.model.context * (kept + logits)
