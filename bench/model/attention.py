"""Causal self-attention with rotary positions and grouped queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.schema import ModelConfig
from bench.model.block import Branch, StepCost, Visit
from bench.model.causal_attention import causal_attention
from bench.model.context import TokenContext
from bench.model.kernels import RMSNorm, split_rotated


def rotary_table(context: int, head_dim: int, theta: float) -> Tensor:
    """Cosines and sines (T, 1, head_dim / 2, 2) of RoPE (Su et al. 2021, arXiv 2104.09864, eq. 15).

    Computed on the CPU, so that every device has the same. Empty on the meta device, where models are only counted.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(context, 1, head_dim // 2, 2)
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
    angles = torch.arange(context, dtype=torch.float64, device="cpu").outer(frequencies)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).float().unsqueeze(1)


class Attention(Branch):
    """A branch: pre-norm, fused query/key/value projection, SDPA, output projection.

    The tokens of a row must be in their original order. Then the causal mask is exact even where positions are
    missing, because index order and position order agree.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads or config.n_heads
        self.head_dim = config.d_model // config.n_heads
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.qkv = nn.Linear(config.d_model, (self.n_heads + 2 * self.n_kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.n_heads * self.head_dim, config.d_model, bias=False)
        self.some_skip = False  # a router around it skips tokens

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        """x (B, T, D) -> what attention adds to it (B, T, D)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, -1, self.head_dim)
        query, key, value = split_rotated(qkv, context.rotary, self.n_heads, self.n_kv_heads)
        if context.arrivals is not None:
            mixed = context.arrivals.attend(self, query[0], key[0], value[0])
        else:
            mixed = causal_attention(query, key, value)
        return self.out(mixed.reshape(batch, length, -1))

    def flops(self, tokens: float) -> dict[str, float]:
        """Forward FLOPs of a row of `tokens` tokens, by part.

        Projections: 2 x weights per token. Scores q.k and the weighted values: 2 x head_dim x heads
        each, for every query-key pair (no causal discount).
        """
        projections = 2 * (self.qkv.weight.numel() + self.out.weight.numel()) * tokens
        pairs = 2 * 2 * self.n_heads * self.head_dim * tokens * tokens
        return {"attention projections": projections, "attention scores": pairs}

    def step_cost(self, visit: Visit) -> StepCost:
        """The projections, and for each arriving row all its keys and values, read and multiplied by its query."""
        projections = sum(p.numel() for p in self.parameters())
        pairs = visit.coming * (visit.context + 1)
        flops = visit.coming * 2 * (self.qkv.weight.numel() + self.out.weight.numel())
        flops += pairs * 2 * 2 * self.n_heads * self.head_dim
        return StepCost(visit.touched() * projections, pairs * 2 * self.n_kv_heads * self.head_dim, flops)
