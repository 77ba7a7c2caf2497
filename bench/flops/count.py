"""Analytic counts of a whole model: sums of what its modules say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from bench.model import Transformer

BACKWARD_PER_FORWARD = 2  # each forward product has two in the backward pass, of the same size


@dataclass(frozen=True)
class Count:
    """Planned figures of a model at one sequence length, FLOPs and bytes a token."""

    forward: float
    train: float
    forward_causal: float  # attention scores halved, as some projects count them
    six_n: float  # 6 x active parameters
    moved_bytes: float
    parts: dict[str, float]
    params_total: int
    params_active: int


def count(model: Transformer, context: int) -> Count:
    """Count `model` on rows of `context` tokens."""
    parts = {part: flops / context for part, flops in model.flops(context).items() if flops}
    forward = sum(parts.values())
    active = round(model.active_params())
    return Count(
        forward=forward,
        train=(1 + BACKWARD_PER_FORWARD) * forward,
        forward_causal=forward - parts.get("attention scores", 0.0) / 2,
        six_n=6.0 * active,
        moved_bytes=model.moved_bytes(context) / context,
        parts=parts,
        params_total=sum(parameter.numel() for parameter in model.parameters()),
        params_active=active,
    )
