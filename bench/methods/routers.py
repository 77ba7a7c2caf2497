"""Routers of depth: the score that ranks a row's tokens, and the causal routers that replace top-k.

Top-k looks at the whole row; a causal router decides by what a token may know.

| causal router | decides by | learns from |
| --- | --- | --- |
| predictor | a small MLP on the router's input | top-k membership, without a gradient into the model |
| bce | the router's own score above 0 | top-k membership, by a loss on the router itself |
| threshold | the score above a fixed value | validation text: the value at which the capacity passes |
| expert_threshold | the score above a running value | training: the mean of the lowest score that top-k took |
| noise_threshold | the noise above a fixed value | nothing: the value is a quantile of the noise |

A model has every one that needs nothing but its router; of predictor and bce, the one it was trained with. A model
that ranks by noise has noise_threshold only.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import DepthConfig
from bench.model.kernels import inverse_rms


class _Float32Product(torch.autograd.Function):
    """x (N, D) and weight (C, D), both 16-bit, on CUDA -> (N, C) in float32; torch has no gradient of this product."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.mm(x, weight.t(), out_dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad = grad.to(x.dtype)
        return grad @ weight, grad.t() @ x


def router_product(x: Tensor, weight: Tensor) -> Tensor:
    """Scores of every router, in training, evaluation and decoding: x (..., D), weight (C, D) -> (..., C) in float32.

    Under autocast the inputs are rounded to its dtype, as for any product, but the product is accumulated and returned
    in float32. Scores rounded to bfloat16 tie: of 64 experts, top 8, 2 % of tokens would get others.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        return F.linear(x, weight)
    with torch.autocast(device, enabled=False):
        x, weight = x.to(dtype), weight.to(dtype)
        if x.is_cuda:
            return _Float32Product.apply(x.flatten(0, -2), weight).view(*x.shape[:-1], len(weight))
        return F.linear(x.float(), weight.float())


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
        return router_product(x, self.score.weight).squeeze(-1)

    def gate_flops(self, chosen: float) -> float:
        """Forward FLOPs of gating. Chosen tokens, ranked before, are gated again: a gather's gradient costs more."""
        return 2.0 * self.score.weight.numel() * chosen

    def rank_flops(self, tokens: float) -> float:
        """Forward FLOPs of ranking `tokens` tokens."""
        return self.gate_flops(tokens)


class GaussianRouter(LearnedRouter):
    """The paper's ablation: tokens are ranked by noise, so the choice carries no information.

    The gate stays learned, so only the choice differs from `LearnedRouter`. In training the noise is fresh. In
    evaluation it is a fixed draw per position, so a row's result does not depend on the rest of the batch. Draws follow
    the order of micro-batches, so splitting a batch gives several routed blocks other noise.
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

    def rank_flops(self, tokens: float) -> float:
        """Noise is free."""
        return 0.0


ROUTERS = {"learned": LearnedRouter, "gaussian": GaussianRouter}


class CausalRouter(nn.Module):
    """`router(x, scores)`: x (B, T, D), scores (B, T) -> logits (B, T); above 0 the token is processed."""

    reads_scores = True  # False: `scores` may be None
    teaches_scores = False  # True: its loss has a gradient into the scores

    def flops(self, tokens: float) -> float:
        """Forward FLOPs of `tokens` tokens."""
        return 0.0

    def backward_flops(self, tokens: float) -> float:
        """The same of the backward pass."""
        return 0.0


class Predictor(CausalRouter):
    """A small MLP that learns top-k membership (arXiv 2404.02258, section 3.5).

    It reads the router's input without a gradient, so it does not change the language model.
    """

    reads_scores = False

    def __init__(self, d_model: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(d_model, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, scores: Tensor | None) -> Tensor:
        x = x.detach()
        # The norm's scale commutes with the projection: scaling the projection's output takes less memory traffic.
        hidden = torch.addcmul(self.hidden.bias, F.linear(x, self.hidden.weight), inverse_rms(x, _EPS))
        return self.score(F.silu(hidden)).squeeze(-1).float()

    def flops(self, tokens: float) -> float:
        return 2.0 * (self.hidden.weight.numel() + self.score.weight.numel()) * tokens

    def backward_flops(self, tokens: float) -> float:
        """The first matrix has the gradient of its weights only, because its input is detached."""
        return 2.0 * (self.hidden.weight.numel() + 2 * self.score.weight.numel()) * tokens


_EPS = torch.finfo(torch.float32).eps


class OwnScore(CausalRouter):
    """The router's own scores, pushed over and under 0 by the BCE (arXiv 2404.02258, section 3.5)."""

    teaches_scores = True

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores


class Threshold(CausalRouter):
    """Scores above a fixed value; until `calibrate` has set it, nothing is processed."""

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
    """Scores above a running mean of the lowest that top-k took in training (arXiv 2603.11535).

    It moves once per step, by all rows of the step, so micro-batches do not change it.
    """

    value: Tensor
    updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores - self.value

    def follow(self, lowest: Tensor) -> None:
        """lowest (B,): the k-th score of each row of a training step."""
        follow_rows(self.value, self.updates, lowest)


def lowest_chosen(scores: Tensor, chosen: Tensor) -> Tensor:
    """The lowest of the `chosen` scores of each row; both (B, T, ...) -> (B, ...)."""
    return scores.masked_fill(~chosen, torch.inf).amin(dim=1)


@torch.no_grad()
def follow_rows(mean: Tensor, updates: Tensor, rows: Tensor) -> None:
    """Move a running `mean` (decay 0.98) towards the mean of `rows` (B, ...), in place; early on it is the plain mean.

    To be called once per training step: `updates` counts steps.
    """
    decay = torch.clamp(updates / (updates + 1), max=0.98)
    mean.lerp_(rows.mean(dim=0), 1 - decay)
    updates += 1


class NoiseThreshold(CausalRouter):
    """The causal counterpart of top-k over noise: noise above its (1 - capacity) quantile."""

    def __init__(self, capacity: float):
        super().__init__()
        self.value = NormalDist().inv_cdf(1.0 - capacity) if capacity < 1 else -math.inf

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        return scores - self.value


def lowest_of(scores: Tensor, capacity: float) -> Tensor:
    """scores (N,) -> a value that a share `capacity` of them exceeds, halfway between two neighbouring scores."""
    ordered = scores.sort(descending=True).values
    k = max(1, round(capacity * len(ordered)))
    return (ordered[k - 1] + ordered[k]) / 2 if k < len(ordered) else ordered[-1] - 1


def default_causal_router(config: DepthConfig) -> str:
    """The causal router of a block by its configuration: for noise, its own quantile is the only one."""
    return "noise_threshold" if config.router == "gaussian" else config.causal


def causal_routers(config: DepthConfig, d_model: int) -> dict[str, CausalRouter]:
    """Name -> module, of every causal router that a block has by its configuration."""
    if config.router == "gaussian":
        return {default_causal_router(config): NoiseThreshold(config.capacity)}
    routers: dict[str, CausalRouter] = {
        "threshold": Threshold(config.capacity),
        "expert_threshold": ExpertThreshold(),
    }
    if config.causal == "predictor":
        routers["predictor"] = Predictor(d_model, config.predictor_hidden or max(8, d_model // 2))
    if config.causal == "bce":
        routers["bce"] = OwnScore()
    return routers
