"""A decoder-only language model over any layers that follow model/block.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import ModelConfig
from bench.model.attention import rotary_tables
from bench.model.block import Layer, add_parts
from bench.model.kernels import RMSNorm
from bench.model.stream import Routing, Stream


class Transformer(nn.Module):
    """Embedding, layers, final norm, head (Llama style: no biases, RMSNorm, RoPE)."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig, layers: Sequence[Layer], vocab_size: int):
        super().__init__()
        self.context = config.context
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        cosine, sine = rotary_tables(config.context, config.d_model // config.n_heads, config.rope_theta)
        self.register_buffer("cosine", cosine.unsqueeze(1), persistent=False)
        self.register_buffer("sine", sine.unsqueeze(1), persistent=False)
        self._initialise(config.n_layers)

    def _initialise(self, n_layers: int) -> None:
        """Normal(0, 0.02); what writes to the residual stream is scaled by 1 / sqrt(2 n_layers) (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            writes = name.endswith(("out.weight", "down.weight", "down"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layers) if writes else 0.02)

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, causal: bool = False
    ) -> tuple[Tensor, list[Routing]]:
        """tokens (B, T) int64 -> logits (B, T, V) and what each router decided.

        valid (B, T) bool marks real tokens; padding must stand at the end of a row.
        causal=False routes as in training (top-k looks at the whole sequence); causal=True uses
        only what a token may know, and is what every reported quality figure comes from.
        """
        length = tokens.shape[1]
        stream = Stream(self.cosine[None, :length], self.sine[None, :length], valid, causal)
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, stream)
        return self.head(self.norm(x)), stream.routings

    @torch.no_grad()
    def causal_logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (B, T) right-padded, lengths (B,) -> logits (B, T, V) in float32, causal routing.

        Position t depends on the tokens <= t of its own row alone; logits at or past a row's length
        are undefined.
        """
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
        logits, _ = self(tokens, valid=valid, causal=True)
        return logits.float()

    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    def flops(self, tokens: int) -> dict[str, float]:
        """Planned forward FLOPs of one row of `tokens` tokens, by part; a multiply-add is 2."""
        head = {"lm head": 2.0 * self.head.weight.numel() * tokens}
        return add_parts(*(layer.flops(tokens) for layer in self._layers()), head)

    def active_params(self) -> float:
        """Parameters that one token meets, in expectation; a tied embedding counts once."""
        ends = {id(p): p.numel() for p in (self.embedding.weight, self.head.weight, self.norm.weight)}
        return sum(ends.values()) + sum(layer.active_params() for layer in self._layers())

    def moved_bytes(self, tokens: int, element_bytes: int) -> float:
        """Bytes that sort, top-k, gather and scatter read and write in a forward pass of one row."""
        return sum(layer.moved_bytes(tokens, element_bytes) for layer in self._layers())


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats; logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
