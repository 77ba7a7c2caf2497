"""The decoder that every method shares, and the parts that layers are built from."""

from bench.model.attention import Attention
from bench.model.block import Block, Branch, FeedForward, Layer, Residual, StepCost, Visit, add_parts
from bench.model.context import Routing, TokenContext
from bench.model.transformer import Transformer

__all__ = [
    "Attention",
    "Block",
    "Branch",
    "FeedForward",
    "Layer",
    "Residual",
    "Routing",
    "StepCost",
    "TokenContext",
    "Transformer",
    "Visit",
    "add_parts",
]
