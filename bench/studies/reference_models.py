"""The peer that studies compare with: Hugging Face's Llama of the same shape."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from bench.config.schema import ModelConfig
from bench.errors import UserError
from bench.model.feed_forward import feed_forward_width


def check_peer() -> None:
    """Raise UserError where transformers is not installed."""
    if find_spec("transformers") is None:
        raise UserError("this study compares with transformers: pip install 'isoflop-bench[test]' brings it.")


def llama(shape: ModelConfig, vocab_size: int) -> Any:
    """LlamaForCausalLM with SDPA attention, freshly initialised; raises UserError as `check_peer` does."""
    check_peer()
    from transformers import LlamaConfig, LlamaForCausalLM

    of_shape: Any = LlamaConfig  # its keyword arguments are wider than its annotations
    return LlamaForCausalLM(
        of_shape(
            vocab_size=vocab_size, hidden_size=shape.d_model, intermediate_size=feed_forward_width(shape),
            num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads or shape.n_heads, max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tie_embeddings, attn_implementation="sdpa",
        )
    )  # fmt: skip
