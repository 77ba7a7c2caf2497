"""The analytic count of a model, and the solver that matches a method to its dense baseline.

| contract | held equal | shape | training |
| --- | --- | --- | --- |
| train_flops | training FLOPs | the baseline's depth and width | the same FLOPs |
| forward_flops | FLOPs of a forward pass | solved | the same tokens |
| tokens | training tokens | the baseline's | the same tokens |
| active_params | active parameters | solved | the same tokens |
| total_params | stored parameters | solved | the same tokens |
| wall_clock | training seconds | the baseline's | the seconds of the baseline's training |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.overrides import TorchFunctionMode

from bench.config.schema import MethodConfig, ModelConfig, RunConfig
from bench.errors import UserError
from bench.methods import build_model
from bench.methods.registry import own_code
from bench.model import Transformer
from bench.model.block import feed_forward_width


@dataclass(frozen=True)
class Count:
    """Planned FLOPs/token and bytes/token of a model at one sequence length, by the sums of its modules' counts."""

    forward: float
    backward: float
    forward_causal: float  # attention scores halved, as some projects count them
    six_n: float  # 6 x active parameters
    moved_bytes: float
    parts: dict[str, float]
    params_total: int
    params_active: int

    @property
    def train(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


def count(model: Transformer, context: int) -> Count:
    """Count `model` on rows of `context` tokens."""
    parts = {part: flops / context for part, flops in model.flops(context).items() if flops}
    forward = sum(parts.values())
    active = round(model.active_params())
    return Count(
        forward=forward,
        backward=sum(model.backward_flops(context).values()) / context,
        forward_causal=forward - parts.get("attention scores", 0.0) / 2,
        six_n=6.0 * active,
        moved_bytes=model.moved_bytes(context) / context,
        parts=parts,
        params_total=sum(parameter.numel() for parameter in model.parameters()),
        params_active=active,
    )


_SOLVED: dict[str, Callable[[Count], float]] = {
    "forward_flops": lambda c: c.forward,
    "active_params": lambda c: float(c.params_active),
    "total_params": lambda c: float(c.params_total),
}
SAME_TOKENS = {"forward_flops", "tokens", "active_params", "total_params"}


@dataclass(frozen=True)
class Plan:
    """What will be trained."""

    model: ModelConfig
    count: Count
    batch_tokens: int
    steps: int  # for wall_clock: the baseline's number; training stops by time
    budget_flops: float  # planned training FLOPs of the run

    @property
    def step_flops(self) -> float:
        return self.count.train * self.batch_tokens

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_tokens

    @property
    def miss(self) -> float:
        """How far the planned whole steps end from the budget, as a share of it."""
        return abs(self.steps * self.step_flops / self.budget_flops - 1)


def dense_baseline(config: RunConfig) -> RunConfig:
    """The same run with the dense method, and with the baseline's own settings where it is tuned apart."""
    dense = replace(config, method=MethodConfig(name="dense"), baseline=None)
    return replace(dense, model=config.baseline.model, train=config.baseline.train) if config.baseline else dense


def plan(config: RunConfig, vocab_size: int) -> Plan:
    """Solve the contract of `config`.

    Raises UserError if the budget is less than one step, or if no shape meets the contract.
    """
    dense = _count(config.model, MethodConfig(name="dense"), vocab_size)
    model = config.model
    if config.contract.name in _SOLVED and config.method.name != "dense":
        model = _solve_shape(config, dense, vocab_size)
    own = _count(model, config.method, vocab_size)
    batch_tokens = config.train.batch_size * model.context
    budget = config.train.budget_flops
    if config.contract.name in SAME_TOKENS:
        steps = round(budget / (dense.train * batch_tokens))
        budget = steps * own.train * batch_tokens
    else:
        steps = round(budget / (own.train * batch_tokens))
    if steps < 1:
        raise UserError(
            f"train.budget_flops={config.train.budget_flops:.3g} is less than one step of {config.method.name}, which "
            f"takes {own.train * batch_tokens:.3g}: raise the budget or lower train.batch_size or the model's size."
        )
    return Plan(model, own, batch_tokens, steps, budget)


class _NoValues(TorchFunctionMode):
    """Skips random initialisation: a model that is only counted has no values.

    On the meta device it would only import torch's compiler, which takes a second.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def _count(model: ModelConfig, method: MethodConfig, vocab_size: int) -> Count:
    with torch.device("meta"), _NoValues(), own_code(method):
        return count(build_model(model, method, vocab_size), model.context)


def _solve_shape(config: RunConfig, dense: Count, vocab_size: int) -> ModelConfig:
    """Depth and feed-forward width whose figure is the baseline's, with d_ff / d_model near the baseline's.

    The figure is affine in d_ff at each depth, so two counts give the width. Where d_ff does not change it, as with
    experts of a given width, only depth is solved. Depth runs up to four times the baseline's, because a method that
    spends less per layer gets more layers.
    """
    figure = _SOLVED[config.contract.name]
    target, width = figure(dense), feed_forward_width(config.model)
    best: tuple[float, float, ModelConfig] | None = None
    for n_layers in range(1, 4 * config.model.n_layers + 1):

        def shaped(d_ff: int, n_layers: int = n_layers) -> ModelConfig:
            return replace(config.model, n_layers=n_layers, d_ff=d_ff)

        narrow, wide = (figure(_count(shaped(d_ff), config.method, vocab_size)) for d_ff in (width, 2 * width))
        exact = width + (target - narrow) * width / (wide - narrow) if wide != narrow else width
        if not width / 3 <= exact <= 3 * width:
            continue
        for d_ff in {max(8, 8 * (round(exact / 8) + step)) for step in (-1, 0, 1)}:
            mismatch = abs(figure(_count(shaped(d_ff), config.method, vocab_size)) / target - 1)
            candidate = (abs(d_ff / width - 1), mismatch, shaped(d_ff))
            if mismatch <= config.contract.tolerance and (best is None or candidate[:2] < best[:2]):
                best = candidate
    if best is None:
        raise UserError(
            f"contract={config.contract.name}: no depth and width of {config.method.name} comes within "
            f"{config.contract.tolerance:.1%} of the dense baseline. Raise contract.tolerance or change the model."
        )
    return best[2]
