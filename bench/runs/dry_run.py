"""What a run would be: printed, not trained."""

from __future__ import annotations

from collections.abc import Callable

from bench.config.schema import RunConfig
from bench.data.tokenizer import vocabulary_size
from bench.evaluate import check_tasks
from bench.flops.match import Plan, dense_baseline, plan
from bench.measure.machine import make_machine
from bench.methods.registry import layer_count
from bench.model.block import feed_forward_width

# Bytes of activations kept for the backward pass, a token and layer, in multiples of d_model and d_ff. Counted
# on this decoder: norms, projections, attention and the residual stream keep 12 d_model, SwiGLU keeps 4 d_ff.
_KEPT_D_MODEL, _KEPT_D_FF = 12, 4
# And of the vocabulary, a token: logits, their log-softmax, and the gradient of each.
_KEPT_LOGITS = 4
ASSUMED_UTILISATION = 0.5


def describe(config: RunConfig) -> str:
    """Parameters, FLOPs, steps, tokens, and estimates of time and memory, for the method and its dense twin."""
    vocab_size = vocabulary_size(config.data.tokenizer)
    check_tasks(config.evaluate.tasks)
    rate = make_machine(config).matmul_flops
    configs = [dense_baseline(config)] if config.method.name == "dense" else [dense_baseline(config), config]
    runs = [(each, plan(each, vocab_size)) for each in configs]
    dense = runs[0][1].count.forward
    rows = [["", *(["dense twin", _label(config)] if len(runs) == 2 else ["dense"])]]
    for name, value in _FIGURES.items():
        rows.append([name, *(value(each, p) for each, p in runs)])
    rows.append(["forward FLOPs over dense's", *(f"{p.count.forward / dense:.4f}" for _, p in runs)])
    rows.append(["training time (estimate)", *(duration(p.budget_flops / rate / ASSUMED_UTILISATION) for _, p in runs)])
    rows.append(["training memory (at most)", *(f"{training_memory(p, each) / 2**30:.2f} GiB" for each, p in runs)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    note = f"Time: this machine's matrix products run at {rate / 1e9:,.0f} GFLOP/s, of which half is assumed."
    return f"contract {config.contract.name}\n{table}\n{note} Nothing was trained."


_FIGURES: dict[str, Callable[[RunConfig, Plan], str]] = {
    "parameters": lambda _, p: f"{p.count.params_total:,}",
    "parameters a token meets": lambda _, p: f"{p.count.params_active:,}",
    "layers": lambda config, p: f"{layer_count(p.model, config.method)}",
    "d_model x d_ff": lambda _, p: f"{p.model.d_model} x {feed_forward_width(p.model)}",
    "forward FLOPs a token": lambda _, p: f"{p.count.forward:,.0f}",
    "training FLOPs a token": lambda _, p: f"{p.count.train:,.0f}",
    "steps": lambda _, p: f"{p.steps:,}",
    "tokens": lambda _, p: f"{p.tokens:,}",
    "training FLOPs": lambda _, p: f"{p.steps * p.step_flops:.4g}",
}


def _label(config: RunConfig) -> str:
    return config.method.name + (f" {config.method.variant}" if config.method.variant else "")


def training_memory(p: Plan, config: RunConfig) -> float:
    """Weights, gradients, two AdamW moments, and one micro-batch's activations and logits in float32.

    As if nothing skipped, and as if all of them stood at once.
    """
    rows = config.train.micro_batch_size or config.train.batch_size
    layers = layer_count(p.model, config.method)
    kept = layers * (_KEPT_D_MODEL * p.model.d_model + _KEPT_D_FF * feed_forward_width(p.model))
    logits = _KEPT_LOGITS * vocabulary_size(config.data.tokenizer)
    return 16 * p.count.params_total + 4 * rows * p.model.context * (kept + logits)


def duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
