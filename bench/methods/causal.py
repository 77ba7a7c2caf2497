"""Causal routers: what a token may know stands in for top-k, which looks at the whole row.

| name | decides by | learns from |
| --- | --- | --- |
| predictor | a small MLP on the router's input | top-k membership, without a gradient into the model |
| bce | the router's own score above 0 | top-k membership, by a loss on the router itself |
| threshold | the score above a fixed value | held-out text: the value that lets the capacity through |
| expert_threshold | the score above a running value | training: the mean of the lowest score that top-k took |
| noise_threshold | the noise above a fixed value | nothing: the value is a quantile of the noise |

A model has all that need nothing but its router, and of predictor and bce the one it was trained with; one that
ranks by noise has the last alone.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import DepthConfig
from bench.model.kernels import inverse_rms


class CausalRouter(nn.Module):
    """`router(x, scores)`: x (B, T, D), scores (B, T) -> logits (B, T); above 0 the token goes through."""

    reads_scores = True  # False: `scores` may be None

    def flops(self, tokens: float) -> float:
        """Forward FLOPs of `tokens` tokens."""
        return 0.0


class Predictor(CausalRouter):
    """A small MLP that learns top-k membership from what a token may know (arXiv 2404.02258, section 3.5).

    It reads a stop-gradient of the router's own input, so it costs the language model nothing.
    """

    reads_scores = False

    def __init__(self, d_model: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(d_model, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, scores: Tensor | None) -> Tensor:
        x = x.detach()
        # The norm's scale commutes with the projection: scaling what comes out of it passes over less memory.
        hidden = torch.addcmul(self.hidden.bias, F.linear(x, self.hidden.weight), inverse_rms(x, _EPS))
        return self.score(F.silu(hidden)).squeeze(-1).float()

    def flops(self, tokens: float) -> float:
        return 2.0 * (self.hidden.weight.numel() + self.score.weight.numel()) * tokens


_EPS = torch.finfo(torch.float32).eps


class OwnScore(CausalRouter):
    """The router's own scores, pushed over and under 0 by the BCE (arXiv 2404.02258, section 3.5)."""

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores


class Threshold(CausalRouter):
    """Scores above a value that was set once: nothing goes through before `calibrate` has set it."""

    value: Tensor

    def __init__(self, capacity: float):
        super().__init__()
        self.capacity = capacity
        self.calibrating = False
        self.register_buffer("value", torch.tensor(math.inf))

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        if self.calibrating:
            self.value.copy_(lowest_of(scores.flatten(), self.capacity))
        return scores - self.value


class ExpertThreshold(CausalRouter):
    """Scores above a running mean of the lowest that top-k took in training (arXiv 2603.11535)."""

    DECAY = 0.98
    value: Tensor
    updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores - self.value

    @torch.no_grad()
    def follow(self, lowest: Tensor) -> None:
        """lowest (B,): the k-th score of each row of a training batch. Early on, a plain mean."""
        decay = torch.clamp(self.updates / (self.updates + 1), max=self.DECAY)
        self.value.lerp_(lowest.mean(), 1 - decay)
        self.updates += 1


class NoiseThreshold(CausalRouter):
    """The causal stand-in for top-k over noise: noise above its own (1 - capacity) quantile."""

    def __init__(self, capacity: float):
        super().__init__()
        self.value = NormalDist().inv_cdf(1.0 - capacity) if capacity < 1 else -math.inf

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores - self.value


def lowest_of(scores: Tensor, capacity: float) -> Tensor:
    """scores (N,) -> a value that `capacity` of them exceed: halfway between the last in and the first out."""
    ordered = scores.sort(descending=True).values
    k = max(1, round(capacity * len(ordered)))
    return (ordered[k - 1] + ordered[k]) / 2 if k < len(ordered) else ordered[-1] - 1


def judge_of(config: DepthConfig) -> str:
    """The causal router that a block of this configuration is judged by: noise can only be held to its own quantile."""
    return "noise_threshold" if config.router == "gaussian" else config.causal


def causal_routers(config: DepthConfig, d_model: int) -> dict[str, CausalRouter]:
    """Name -> module, for every causal router that a block of this configuration has."""
    if config.router == "gaussian":
        return {judge_of(config): NoiseThreshold(config.capacity)}
    routers: dict[str, CausalRouter] = {
        "threshold": Threshold(config.capacity),
        "expert_threshold": ExpertThreshold(),
    }
    if config.causal == "predictor":
        routers["predictor"] = Predictor(d_model, config.predictor_hidden)
    if config.causal == "bce":
        routers["bce"] = OwnScore()
    return routers
