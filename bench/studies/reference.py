"""What dense is held to in the ci study: a training step of torch's own encoder, which shares no line with bench.

Its mix of matrix products, memory and small operations is that of dense, so that whatever else a machine does slows
both alike. With plain matrix products in its place the ratio rose by 9 % as soon as another process trained beside it,
on two cores of an Intel Xeon, and by 1 % with this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import ModelConfig


def encoder_step(shape: ModelConfig, vocab_size: int, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """A step on one batch, inputs and targets (B, T) int64, at learning rate 0, on their device and in float32.

    A causal nn.TransformerEncoder of the depth, width and heads of `shape`, and AdamW.
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
