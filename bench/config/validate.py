"""What must hold of a configuration before anything is created or torch is imported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from bench.config.schema import RunConfig
from bench.errors import UserError

_CHOICES = {
    "contract.name": ("train_flops", "forward_flops", "tokens", "active_params", "total_params", "wall_clock"),
    "data.source": ("kjv", "text", "hub"),
    "data.tokenizer.kind": ("bytes", "bpe", "pretrained"),
    "train.device": ("auto", "cpu", "cuda"),
    "train.dtype": ("auto", "float32", "bfloat16"),
    "method.depth.router": ("learned", "gaussian"),
    "method.depth.scope": ("block", "attention", "feed_forward"),
    "method.depth.causal": ("predictor", "bce", "threshold", "expert_threshold"),
    "method.experts.routing": ("token_choice", "expert_choice"),
    "method.experts.balance": ("loss", "bias", "none"),
}

_AT_LEAST_ONE = (
    "model.n_layers", "model.d_model", "model.n_heads", "model.n_kv_heads", "model.d_ff", "model.context",
    "train.batch_size", "train.micro_batch_size", "train.threads", "train.log_every",
    "data.validation_documents", "data.max_documents",
    "data.tokenizer.vocab_size", "evaluate.validation_tokens", "evaluate.batch_size", "evaluate.limit",
    "method.depth.every", "method.depth.predictor_hidden", "method.experts.n_experts",
    "method.experts.top_k", "method.experts.hidden", "study.rounds", "study.processes",
)  # fmt: skip

# Far beyond any use; what is larger would exhaust the machine, or overflow, before it could be refused.
_AT_MOST = {
    "model.n_layers": 10_000, "model.d_model": 1 << 20, "model.d_ff": 1 << 22, "model.context": 1 << 24,
    "train.batch_size": 1 << 24, "train.threads": 4 * (os.cpu_count() or 1), "method.layers": 1_000,
    "method.experts.n_experts": 1 << 16, "method.experts.n_noop": 1 << 16, "method.experts.hidden": 1 << 22,
    "seed": (1 << 63) - 1,
}  # fmt: skip

_POSITIVE = ("train.budget_flops", "train.lr", "train.lr_at_128", "train.grad_clip", "model.rope_theta",
             "model.norm_eps", "contract.tolerance", "method.layers", "train.checkpoint_every_seconds")  # fmt: skip

_NOT_NEGATIVE = ("train.weight_decay", "method.experts.n_shared", "method.experts.n_noop", "method.experts.z_loss",
                 "method.experts.balance_loss", "method.depth.causal_loss", "seed", "evaluate.timing_steps",
                 "train.snapshots")  # fmt: skip

_SHARES = ("train.warmup", "train.beta1", "train.beta2")

_LONGEST_NAME = 200  # bytes; file systems take 255, and files are written beside it under longer names


def check(config: RunConfig) -> None:
    """Raise UserError for the first value that cannot work, naming its key, the value and what is allowed."""
    for key, value in _numbers(config):
        if not math.isfinite(value):
            raise UserError(f"{key}={value} is not allowed: it must be a finite number.")
    for key, allowed in _CHOICES.items():
        _require(config, key, lambda value, allowed=allowed: value in allowed, f"one of {', '.join(allowed)}")
    for key in _AT_LEAST_ONE:
        _require(config, key, lambda value: value >= 1, "at least 1")
    for key, most in _AT_MOST.items():
        _require(config, key, lambda value, most=most: value <= most, f"at most {most}")
    for rows in config.evaluate.decode_batch_sizes:
        if rows < 1:
            raise UserError(f"evaluate.decode_batch_sizes: {rows} is not allowed: it must be at least 1.")
    for key in _POSITIVE:
        _require(config, key, lambda value: value > 0, "more than 0")
    for key in _NOT_NEGATIVE:
        _require(config, key, lambda value: value >= 0, "0 or more")
    for key in _SHARES:
        _require(config, key, lambda value: 0 <= value < 1, "at least 0 and less than 1")
    _require(config, "train.lr_final", lambda value: 0 <= value <= 1, "at least 0 and at most 1")
    _require(config, "method.depth.capacity", lambda value: 0 < value <= 1, "more than 0 and at most 1")
    _check_shape(config)


def _check_shape(config: RunConfig) -> None:
    model, experts, train = config.model, config.method.experts, config.train
    if model.d_model % model.n_heads:
        raise UserError(
            f"model.n_heads={model.n_heads} does not divide model.d_model={model.d_model}; "
            f"one of {_divisors(model.d_model, even_quotient=True)} would."
        )
    if model.d_model // model.n_heads % 2:
        raise UserError(
            f"model.d_model={model.d_model} over model.n_heads={model.n_heads} gives heads of "
            f"{model.d_model // model.n_heads}; rotary positions need an even width."
        )
    if model.n_kv_heads is not None and model.n_heads % model.n_kv_heads:
        raise UserError(
            f"model.n_kv_heads={model.n_kv_heads} does not divide model.n_heads={model.n_heads}; "
            f"one of {_divisors(model.n_heads)} would."
        )
    depth, layers = config.method.depth, max(1, round(model.n_layers * config.method.layers))
    if depth is not None and depth.every > layers:
        raise UserError(
            f"method.depth.every={depth.every} routes none of the {layers} layers; it must be at most {layers}."
        )
    if model.context < 2:
        raise UserError(f"model.context={model.context}: a sequence needs at least 2 tokens.")
    if model.context < 3 and config.evaluate.timing_steps and config.evaluate.decode_batch_sizes:
        raise UserError(
            f"model.context={model.context} leaves no token to time decoding by: it must be at least 3, or "
            "evaluate.decode_batch_sizes=[]."
        )
    if experts is not None and experts.top_k > experts.n_experts + experts.n_noop:
        raise UserError(
            f"method.experts.top_k={experts.top_k} is more than the {experts.n_experts + experts.n_noop} there are "
            "to choose from (method.experts.n_experts + n_noop)."
        )
    if experts is not None and experts.routing == "expert_choice" and experts.n_noop:
        raise UserError("method.experts.n_noop needs method.experts.routing=token_choice: no-ops are chosen by tokens.")
    if experts is not None and model.d_model % 8:
        raise UserError(f"model.d_model={model.d_model}: experts need a multiple of 8 (for whole 16 bytes a row).")
    if experts is not None and experts.hidden is not None and experts.hidden % 8:
        raise UserError(
            f"method.experts.hidden={experts.hidden} is not allowed: it must be a multiple of 8 (for whole 16 bytes a "
            f"row), such as {8 * -(-experts.hidden // 8)}."
        )
    if config.method.layers != 1 and config.contract.name in ("forward_flops", "active_params", "total_params"):
        raise UserError(
            f"contract={config.contract.name} solves for the depth that method.layers={config.method.layers:g} "
            f"({config.method.name}) sets, which would make it the dense twin again; use contract=train_flops, tokens "
            "or wall_clock."
        )
    if train.micro_batch_size is not None and train.batch_size % train.micro_batch_size:
        raise UserError(
            f"train.micro_batch_size={train.micro_batch_size} does not divide train.batch_size={train.batch_size}; "
            f"one of {_divisors(train.batch_size)} would."
        )
    for key, name in (("name", config.name), ("study.name", config.study.name if config.study else None)):
        if name is not None and (not name or set(name) & set('/\\:*?"<>|') or name[0] == "."):
            raise UserError(f'{key}={name!r} must be a plain folder name, without / \\ : * ? " < > | or a leading dot.')
        if name is not None and len(name.encode()) > _LONGEST_NAME:
            raise UserError(f"{key} is {len(name.encode())} bytes long: a folder's name may have {_LONGEST_NAME}.")


def _require(config: RunConfig, key: str, holds, allowed: str) -> None:
    value = config
    for part in key.split("."):
        value = getattr(value, part)
        if value is None:  # an optional part that is not there has nothing to check
            return
    if not holds(value):
        raise UserError(f"{key}={value} is not allowed: it must be {allowed}.")


def _divisors(number: int, even_quotient: bool = False) -> str:
    found = (d for d in range(1, number + 1) if number % d == 0 and not (even_quotient and number // d % 2))
    return ", ".join(str(d) for d in found if d <= 64 or d == number)


def _numbers(part: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a configuration with its key."""
    for entry in fields(part):
        value = getattr(part, entry.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{entry.name}.")
        elif isinstance(value, float):
            yield f"{prefix}{entry.name}", value
