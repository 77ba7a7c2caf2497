"""The dense feed-forward: SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

from __future__ import annotations

from torch import Tensor, nn

from bench.config.schema import ModelConfig
from bench.model.block import Branch
from bench.model.context import Stream
from bench.model.kernels import RMSNorm, swiglu


def feed_forward_width(config: ModelConfig) -> int:
    """d_ff, or where it is not given 8/3 of d_model rounded up to a multiple of 32."""
    if config.d_ff is not None:
        return config.d_ff
    return -(-8 * config.d_model // (3 * 32)) * 32


class FeedForward(Branch):
    """A residual branch: pre-norm, fused gate and up projections, SwiGLU, down projection."""

    def __init__(self, config: ModelConfig, hidden: int | None = None):
        super().__init__()
        hidden = hidden or feed_forward_width(config)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.gate_up = nn.Linear(config.d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, config.d_model, bias=False)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """x (B, T, D) -> what the feed-forward adds to it (B, T, D)."""
        return self.down(swiglu(self.gate_up(self.norm(x))))

    def flops(self, tokens: float) -> dict[str, float]:
        """Forward FLOPs of `tokens` tokens: 2 x weights a token."""
        return {"feed-forward": 2 * (self.gate_up.weight.numel() + self.down.weight.numel()) * tokens}
