"""Depth routers: a score for each token, and a causal stand-in for top-k."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import DepthConfig


class LearnedRouter(nn.Module):
    """r = w . x for each token (arXiv 2404.02258, section 3.3): it ranks tokens, and it gates the branch."""

    def __init__(self, d_model: int, context: int, layer: int):
        super().__init__()
        self.score = nn.Linear(d_model, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> ranking scores (B, T), gates r (B, T); here the two are the same."""
        weights = self.score(x).squeeze(-1).float()
        return weights, weights

    def flops(self, tokens: float) -> float:
        return 2.0 * self.score.weight.numel() * tokens


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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, _ = super().forward(x)
        fixed = self.fixed_noise[: x.shape[1]].expand(x.shape[:2])
        return (torch.randn_like(weights) if self.training else fixed), weights


ROUTERS = {"learned": LearnedRouter, "gaussian": GaussianRouter}


class CausalRouter(nn.Module):
    """`router(x, scores)`: x (B, T, D), scores (B, T) -> logits (B, T); above 0 the token goes through."""

    def flops(self, tokens: float) -> float:
        """Forward FLOPs of `tokens` tokens."""
        return 0.0


class Predictor(CausalRouter):
    """A small MLP that learns top-k membership from what a token may know (section 3.5, second method).

    It reads a stop-gradient of the router's own input and score, so it costs the language model nothing.
    """

    def __init__(self, d_model: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(d_model, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        x = x.detach()
        return self.score(F.silu(self.hidden(F.rms_norm(x, x.shape[-1:])))).squeeze(-1).float()

    def flops(self, tokens: float) -> float:
        return 2.0 * (self.hidden.weight.numel() + self.score.weight.numel()) * tokens


class GaussianThreshold(CausalRouter):
    """The causal stand-in for top-k over noise: noise above its own (1 - capacity) quantile."""

    def __init__(self, capacity: float):
        super().__init__()
        self.threshold = NormalDist().inv_cdf(1.0 - capacity) if capacity < 1 else -math.inf

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores - self.threshold


class OwnLogits(CausalRouter):
    """The router's own logits, pushed over and under 0 by the BCE (section 3.5, first method)."""

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores


def causal_router(config: DepthConfig, d_model: int) -> CausalRouter:
    """The module (x, scores) -> logits that decides, token by token, without the future."""
    if config.router == "gaussian":
        return GaussianThreshold(config.capacity)
    return Predictor(d_model, config.predictor_hidden) if config.causal == "predictor" else OwnLogits()
