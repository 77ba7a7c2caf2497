"""Independent implementations to compare with: Hugging Face's Llama and torch's own encoder."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import ModelConfig
from bench.errors import UserError
from bench.model.block import feed_forward_width


def check_transformers() -> None:
    """Raise UserError if transformers is not installed."""
    if find_spec("transformers") is None:
        raise UserError("this study needs transformers: pip install 'isoflop-bench[test]'.")


def llama(shape: ModelConfig, vocab_size: int) -> Any:
    """LlamaForCausalLM of the same shape with SDPA attention, freshly initialised.

    Raises UserError as `check_transformers` does.
    """
    check_transformers()
    from transformers import LlamaConfig, LlamaForCausalLM

    of_shape: Any = LlamaConfig  # it takes more keyword arguments than its annotations say
    return LlamaForCausalLM(
        of_shape(
            vocab_size=vocab_size, hidden_size=shape.d_model, intermediate_size=feed_forward_width(shape),
            num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads or shape.n_heads, max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tie_embeddings, attn_implementation="sdpa",
        )
    )  # fmt: skip


def encoder_step(shape: ModelConfig, vocab_size: int, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """A training step of a causal nn.TransformerEncoder, the reference of the ci study: dense steps are divided by it.

    Depth, width and heads are those of `shape`, the optimiser is AdamW at learning rate 0. inputs, targets: (B, T)
    int64; the model is float32, on their device. Its mix of matrix products, memory traffic and small operations is
    that of dense, so other load on the machine slows both alike. With plain matrix products instead, the ratio rose by
    9 % when another process trained at the same time, on two cores of an Intel Xeon; with this, by 1 %.
    """
    layer = nn.TransformerEncoderLayer(
        shape.d_model, shape.n_heads, 4 * shape.d_model, dropout=0.0, activation="gelu", batch_first=True,
        norm_first=True, bias=False,
    )  # fmt: skip
    encoder = nn.TransformerEncoder(layer, shape.n_layers, enable_nested_tensor=False)
    embedding, head = nn.Embedding(vocab_size, shape.d_model), nn.Linear(shape.d_model, vocab_size, bias=False)
    model = nn.ModuleList([embedding, encoder, head]).to(inputs.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(inputs.shape[1], device=inputs.device)

    def step() -> None:
        logits = head(encoder(embedding(inputs), mask=mask, is_causal=True))
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step
