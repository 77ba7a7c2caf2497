"""The decoder that every method shares."""

from bench.model.attention import Attention
from bench.model.block import Block, Residual
from bench.model.context import Routing, Stream
from bench.model.feed_forward import FeedForward
from bench.model.transformer import Transformer

__all__ = ["Attention", "Block", "FeedForward", "Residual", "Routing", "Stream", "Transformer"]
