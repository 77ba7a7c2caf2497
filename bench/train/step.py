"""One training step: forward, backward, clip, update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from bench.config.schema import ModelConfig, RunConfig, TrainConfig
from bench.flops.dispatch import executed_flops
from bench.methods import build_model
from bench.model import Branch, Layer, Routing, Transformer
from bench.model.transformer import next_token_loss
from bench.train.optimiser import clip, make_optimiser, peak_lr

_COUNTED_ROWS = 2  # of a compiled model's batch: without compilation a pass takes more memory
_RECOMPILES = 8  # torch's own limit: for other batch sizes and contexts, training or not


@dataclass
class StepReport:
    """The outcome of a step. loss: mean next-token cross-entropy in nats/token, without auxiliary losses."""

    loss: float
    grad_norm: float
    extra_flops: float  # executed beyond the plan, forward and backward
    metrics: dict[str, float] = field(default_factory=dict)


def precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: as configured, or bfloat16 on CUDA and float32 elsewhere."""
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, config.dtype)


def autocast(device: torch.device, dtype: torch.dtype):
    """Autocast to `dtype`, or nothing if that is float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


class Trainee:
    """A model, its optimiser, and one training step of it."""

    def __init__(self, model: Transformer, config: TrainConfig, d_model: int, device: torch.device):
        self.model = model.to(device).train()
        self.config = config
        self.device = device
        self.dtype = precision(config, device)
        self.peak_lr, self.lr_rule = peak_lr(config, d_model)
        self.optimiser = make_optimiser(self.model, config, self.peak_lr)
        self.compiles = config.compile if config.compile is not None else device.type == "cuda"
        self.forward = _compiled(self.model) if self.compiles else self.model

    @classmethod
    def of(cls, config: RunConfig, shape: ModelConfig, vocab_size: int, device: torch.device) -> Self:
        """A fresh model of the method of `config`, in `shape`; initialised, and to be trained, from its seed."""
        model = build_model(shape, config.method, vocab_size, config.seed)
        torch.manual_seed(config.seed)
        return cls(model, config.train, shape.d_model, device)

    def warm_up(self, inputs: Tensor, targets: Tensor) -> None:
        """Compile by one forward and backward pass; model, optimiser and random state stay bit for bit.

        Once is enough: sizes that follow the routing differ from layer to layer, so the compiler sees several.
        """
        with self.model.unchanged():
            self.accumulate(inputs, targets)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # otherwise the first step waits for it

    def executed_flops(self, inputs: Tensor, targets: Tensor) -> float:
        """FLOPs/token that a step of this batch executes, counted by torch's dispatcher without compilation.

        Blocks of attention that are skipped do not count; padding does. The model stays as it is.
        """
        rows = _COUNTED_ROWS if self.compiles else len(inputs)
        forward, self.forward = self.forward, self.model
        try:
            with self.model.unchanged(), executed_flops() as counter:
                self.accumulate(inputs[:rows], targets[:rows])
        finally:
            self.forward = forward
        return counter.get_total_flops() / inputs[:rows].numel()

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> StepReport:
        """inputs, targets (B, T) int64; updates the model with learning rate `lr`."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        losses, passes = self.accumulate(inputs, targets)
        grad_norm = self.update()
        self._after_step(passes)
        return StepReport(
            loss=torch.stack(losses).sum().item(),
            grad_norm=grad_norm,
            extra_flops=_extra_flops(passes),
            metrics=_mean_metrics(passes),
        )

    def accumulate(self, inputs: Tensor, targets: Tensor) -> tuple[list[Tensor], list[list[Routing]]]:
        """Forward and backward, one micro-batch after another: each one's share of the mean loss, and its routings.

        All rows weigh the same, in micro-batches of any size.
        """
        size = self.config.micro_batch_size or len(inputs)
        losses, passes = [], []
        for tokens, wanted in zip(inputs.split(size), targets.split(size), strict=True):
            share = len(tokens) / len(inputs)
            with autocast(self.device, self.dtype):
                logits, routings = self.forward(tokens.to(self.device, non_blocking=True))
                loss = next_token_loss(logits, wanted.to(self.device, non_blocking=True))
            auxiliary = sum(value for routing in routings for value in routing.losses.values())
            ((loss + auxiliary) * share).backward()
            losses.append(loss.detach() * share)
            passes.append(routings)
        return losses, passes

    def update(self) -> float:
        """Clip the gradients, step the optimiser, clear the gradients; returns the norm before clipping."""
        grad_norm = clip(self.model, self.config.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return grad_norm

    @torch.no_grad()
    def loss(self, inputs: Tensor, targets: Tensor) -> float:
        """Of one micro-batch of inputs, targets (B, T), in nats/token; model and random state stay as they are."""
        rows = self.config.micro_batch_size or len(inputs)
        self.model.eval()
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            autocast(self.device, self.dtype),
        ):
            logits, _ = self.model(inputs[:rows].to(self.device))
            loss = next_token_loss(logits, targets[:rows].to(self.device)).item()
        self.model.train()
        return loss

    def _after_step(self, passes: list[list[Routing]]) -> None:
        """Give each routed branch and layer its routings of the whole step."""
        for module in self.model.modules():
            if isinstance(module, (Branch, Layer)) and module.layer is not None:
                module.after_step([r for routings in passes for r in routings if r.layer == module.layer])


def _compiled(model: Transformer) -> Callable[[Tensor], tuple[Tensor, list[Routing]]]:
    """`model`, compiled.

    torch counts recompilations by the code of `forward`, which every model shares. Past its limit it continues
    uncompiled, without an error. So each model raises the limit by what torch allows one.
    """
    from torch._dynamo import config as limits  # takes a second to import, and is needed for compilation only

    limits.recompile_limit += _RECOMPILES
    limits.accumulated_recompile_limit += _RECOMPILES
    return torch.compile(model)


def _extra_flops(passes: list[list[Routing]]) -> float:
    return sum(sum(routing.beyond_plan()) for routings in passes for routing in routings)


def _mean_metrics(passes: list[list[Routing]]) -> dict[str, float]:
    """Each metric's mean over layers and micro-batches."""
    gathered: dict[str, list[Tensor]] = {}
    for routings in passes:
        for routing in routings:
            for name, value in (*routing.metrics.items(), *routing.losses.items()):
                if name not in ("balance", "z"):  # their unweighted values are among the metrics
                    gathered.setdefault(name, []).append(value.detach())
    return {name: torch.stack(values).mean().item() for name, values in gathered.items()}
