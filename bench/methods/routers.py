"""Depth routers: a score for each token, by which the tokens of a row are ranked, and the gate r."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedRouter(nn.Module):
    """r = w . x for each token (arXiv 2404.02258, section 3.3): it ranks tokens, and it gates the branch."""

    def __init__(self, d_model: int, context: int, layer: int):
        super().__init__()
        self.score = nn.Linear(d_model, 1, bias=False)

    def rank(self, x: Tensor, positions: Tensor) -> Tensor:
        """x (B, T, D) at `positions` (B or 1, T) -> scores (B, T)."""
        return self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """x (B, S, D), the chosen tokens -> r (B, S) in float32."""
        return self.score(x).squeeze(-1).float()

    def flops(self, tokens: float, chosen: float) -> float:
        """Every token is ranked and the chosen ones are gated.

        Gating them again costs less than carrying the gradient of a gather over all tokens.
        """
        return 2.0 * self.score.weight.numel() * (tokens + chosen)


class GaussianRouter(LearnedRouter):
    """The paper's control: tokens are ranked by noise, so the choice carries no information.

    The gate stays learned, so that only the choice differs from `LearnedRouter`. In training the
    noise is fresh; in evaluation it is a fixed draw per position, so that a row's result depends
    neither on its neighbours nor on when it is evaluated.
    """

    fixed_noise: Tensor

    def __init__(self, d_model: int, context: int, layer: int):
        super().__init__(d_model, context, layer)
        fixed = torch.randn(context, generator=torch.Generator("cpu").manual_seed(layer), device="cpu")
        self.register_buffer("fixed_noise", fixed, persistent=False)

    def rank(self, x: Tensor, positions: Tensor) -> Tensor:
        """x (B, T, D) at `positions` (B or 1, T) -> noise (B, T)."""
        if self.training:
            return torch.randn(x.shape[:2], device=x.device)
        return self.fixed_noise[positions].expand(x.shape[:2])

    def flops(self, tokens: float, chosen: float) -> float:
        """Noise is free; the chosen tokens are gated."""
        return 2.0 * self.score.weight.numel() * chosen


ROUTERS = {"learned": LearnedRouter, "gaussian": GaussianRouter}
