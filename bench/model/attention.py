"""Causal self-attention with rotary positions and grouped queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import ModelConfig
from bench.model.block import Branch
from bench.model.kernels import RMSNorm, rotate
from bench.model.stream import Stream


def rotary_tables(context: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, head_dim / 2) of RoPE (Su et al. 2021, arXiv 2104.09864, eq. 15)."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
    angles = torch.arange(context, dtype=torch.float64, device="cpu").outer(frequencies)
    return angles.cos().float(), angles.sin().float()


class Attention(Branch):
    """A residual branch: pre-norm, fused query/key/value projection, SDPA, output projection.

    The tokens of a row must be in their original order; then the causal mask is exact even where
    some positions are missing, because index order and position order agree.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads or config.n_heads
        self.head_dim = config.d_model // config.n_heads
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.qkv = nn.Linear(config.d_model, (self.n_heads + 2 * self.n_kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.n_heads * self.head_dim, config.d_model, bias=False)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """x (B, T, D) -> what attention adds to it (B, T, D)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, -1, self.head_dim)
        query_key, value = qkv.split((self.n_heads + self.n_kv_heads, self.n_kv_heads), dim=2)
        query_key = rotate(query_key, stream.cosine, stream.sine)
        query, key = query_key.split((self.n_heads, self.n_kv_heads), dim=2)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            is_causal=True,
            enable_gqa=self.n_heads != self.n_kv_heads,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))

    def flops(self, tokens: float) -> dict[str, float]:
        """Forward FLOPs of a row of `tokens` tokens, by part.

        Projections: 2 x weights a token. Scores q.k and the weighted values: 2 x head_dim x heads
        each, for every query-key pair (no causal discount).
        """
        projections = 2 * (self.qkv.weight.numel() + self.out.weight.numel()) * tokens
        pairs = 2 * 2 * self.n_heads * self.head_dim * tokens * tokens
        return {"attention projections": projections, "attention scores": pairs}
