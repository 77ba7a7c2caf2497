"""AdamW, its learning rate, and clipping."""

from __future__ import annotations

import math

import torch
from torch import nn

from bench.config.schema import TrainConfig
from bench.methods.routers import CausalRouter


def peak_lr(config: TrainConfig, d_model: int) -> tuple[float, str]:
    """The peak learning rate and the rule it came from, in words for the report."""
    if config.lr is not None:
        return config.lr, "given: train.lr"
    lr = config.lr_at_128 * math.sqrt(128 / d_model)
    return lr, f"rule: {config.lr_at_128:g} x sqrt(128 / d_model)"


def schedule(progress: float, config: TrainConfig) -> float:
    """Share of the peak learning rate at a share `progress` of the budget: linear warm-up, then a cosine.

    Progress is spent budget, not steps, so that runs whose steps vary in cost, or that stop at a
    number of seconds, follow the same shape.
    """
    if progress < config.warmup:
        return progress / config.warmup
    done = min(1.0, (progress - config.warmup) / max(1e-9, 1.0 - config.warmup))
    return config.lr_final + (1.0 - config.lr_final) * (1.0 + math.cos(math.pi * done)) / 2


def make_optimiser(model: nn.Module, config: TrainConfig, lr: float) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); matrices decay, norms and biases do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(config.beta1, config.beta2), fused=True)


def clip(model: nn.Module, limit: float) -> float:
    """Clip gradients to a norm of `limit`; returns the language model's norm before clipping.

    Causal routers learn without a gradient into the model. They are clipped by their own norm, so that they cannot
    shrink the model's step.
    """
    routers = [p for module in model.modules() if isinstance(module, CausalRouter) for p in module.parameters()]
    apart = {id(parameter) for parameter in routers}
    if routers:
        _scale_down(routers, limit)
    return _scale_down([p for p in model.parameters() if id(p) not in apart], limit)


def _scale_down(parameters: list[nn.Parameter], limit: float) -> float:
    """Clip by norm (Pascanu et al. 2013, arXiv 1211.5063); gradients within the limit are not touched."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).item()
    if norm > limit:
        torch._foreach_mul_(gradients, limit / (norm + 1e-6))
    return norm
