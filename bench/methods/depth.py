"""Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258): a branch that only some tokens go through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import DepthConfig
from bench.methods.causal import CausalRouter, ExpertThreshold, Threshold, causal_routers, judge_of
from bench.methods.permute import take
from bench.methods.routers import ROUTERS
from bench.model.attention import Attention
from bench.model.block import Branch, Layer, StepCost, Visit, add_parts
from bench.model.cache import Arrivals
from bench.model.context import Routing, Stream


def capacity_tokens(capacity: float, tokens: int) -> int:
    """How many of `tokens` a routed branch processes: 256 of 2048 at 12.5 %, and never none."""
    return max(1, round(capacity * int(tokens)))  # a traced shape is a tensor


class DepthRouted(Layer):
    """A layer that gives x + r * branch(x) to the chosen tokens of each row and x to the others.

    In training the k tokens with the highest scores are chosen, exactly k and in every row; in causal
    evaluation each token decides for itself, by the causal router that `judge` names. The branch sees
    the chosen tokens alone, in their order and with their original positions. So it does in decoding
    steps; computing all rows and using the chosen ones (a `masked` cache) was slower on 2 CPU cores at every batch
    size from 2 to 64 and context from 128 to 4096 that `+study=decode` timed.
    """

    def __init__(self, branch: Branch, config: DepthConfig, d_model: int, context: int, layer: int):
        super().__init__()
        self.branch = branch
        for module in branch.modules():
            if isinstance(module, Attention):
                module.some_skip = True
        self.config = config
        self.layer = layer
        self.router = ROUTERS[config.router](d_model, context, layer)
        self.causal_routers = nn.ModuleDict(causal_routers(config, d_model))
        self.judge = judge_of(config)
        self.expected_share = config.capacity  # of rows that a decoding step is said to let through

    @property
    def causal_router(self) -> CausalRouter:
        return cast(CausalRouter, self.causal_routers[self.judge])

    @property
    def _planned_router(self) -> CausalRouter:
        """The configuration's, whichever one judges now."""
        return cast(CausalRouter, self.causal_routers[judge_of(self.config)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if stream.arrivals is not None:
            return self._extend(x, stream)
        scores = self.router.rank(x, stream.positions)
        causal_logits = self.causal_router(x, scores)
        chosen: Tensor | None
        if stream.causal:
            index, chosen = _where(_real(causal_logits > 0, stream.valid))
        else:
            index, chosen = self._top_k(scores, stream.valid)
        selected = _membership(index, chosen, x.shape[1])
        routing = self._report(scores, causal_logits, selected, stream)
        y = self._process(x, index, chosen, stream)
        routing.executed_flops = self._executed(selected, stream)
        stream.routings.append(routing)
        return y

    def _top_k(self, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Indices (B, k) of the k highest scores of each row, ascending; which of them are to be used.

        A padded row has the capacity of its real tokens, and padding takes none of it.
        """
        k = capacity_tokens(self.config.capacity, scores.shape[1])
        if valid is None:
            return scores.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values, None
        quota = (self.config.capacity * valid.sum(dim=-1, keepdim=True)).round().clamp(min=1)
        ranked = scores.masked_fill(~valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        rank = torch.empty_like(ranked).scatter_(1, ranked, torch.arange(ranked.shape[1]).to(ranked).expand_as(ranked))
        return _where(_real(rank < quota, valid))

    def _process(self, x: Tensor, index: Tensor, chosen: Tensor | None, stream: Stream) -> Tensor:
        batch, length, width = x.shape
        rows = torch.arange(batch, device=x.device).unsqueeze(1) * length
        flat = (index + rows).flatten()
        stays, taken = take(x.reshape(-1, width), flat)
        taken = taken.view(*index.shape, width)
        gates = self.router.gate(taken)
        if chosen is not None:
            gates = gates.masked_fill(~chosen, 0.0)
        added = self.branch(taken, stream.select(index, chosen)) * gates.unsqueeze(-1).to(x.dtype)
        return stays.index_add(0, flat, added.reshape(-1, width).to(x.dtype)).view_as(x)

    def _extend(self, x: Tensor, stream: Stream) -> Tensor:
        """Tokens x (1, N, D) of rows that are read in pieces, or of trees, each deciding for itself."""
        router = self.causal_router
        scores = self.router.rank(x, stream.positions) if router.reads_scores else None
        chosen = router(x, scores)[0] > 0
        if isinstance(stream.arrivals, Arrivals) and stream.arrivals.masked:
            staying = replace(stream, arrivals=stream.arrivals.stay(chosen))
            gates = self.router.gate(x) * chosen
            return x + self.branch(x, staying) * gates.unsqueeze(-1).to(x.dtype)
        index = chosen.nonzero().squeeze(1)
        if len(index) == len(chosen):
            return x + self.branch(x, stream) * self.router.gate(x).unsqueeze(-1).to(x.dtype)
        if not len(index):
            return x
        taken = x[:, index]
        added = self.branch(taken, stream.take(index)) * self.router.gate(taken).unsqueeze(-1).to(x.dtype)
        return x.index_add(1, index, added.to(x.dtype))

    def _report(self, scores: Tensor, causal_logits: Tensor, selected: Tensor, stream: Stream) -> Routing:
        choice = _real(causal_logits.detach() > 0, stream.valid)
        routing = Routing(self.layer, selected=selected, scores=scores.detach(), causal_choice=choice)
        routing.metrics["fraction_processed"] = _mean_over(selected, stream.valid)
        if stream.causal:
            return routing
        if not isinstance(self.causal_router, Threshold):  # which is set after training
            routing.metrics["predictor_accuracy"] = _mean_over(choice == selected, stream.valid)
        if self.training:
            self._learn(routing, scores, causal_logits, selected)
        return routing

    def _learn(self, routing: Routing, scores: Tensor, causal_logits: Tensor, selected: Tensor) -> None:
        """What the causal routers take from a training pass."""
        if self.judge in ("predictor", "bce"):
            loss = F.binary_cross_entropy_with_logits(causal_logits, selected.to(causal_logits.dtype))
            routing.losses["causal_loss"] = loss if self.judge == "predictor" else self.config.causal_loss * loss
        if "expert_threshold" in self.causal_routers:
            running = cast(ExpertThreshold, self.causal_routers["expert_threshold"])
            scores = scores.detach()
            routing.metrics["expert_threshold_accuracy"] = ((scores > running.value) == selected).float().mean()
            running.follow(scores.masked_fill(~selected, torch.inf).amin(dim=1))

    def _executed(self, selected: Tensor, stream: Stream) -> Tensor | None:
        """FLOPs beyond the plan where tokens choose for themselves; top-k executes the plan exactly."""
        if not stream.causal:
            return None
        tokens = selected.shape[1]
        planned = self._spent(tokens, capacity_tokens(self.config.capacity, tokens))
        extra = [_total(self._spent(tokens, n)) - _total(planned) for n in selected.sum(dim=-1).tolist()]
        return torch.tensor(sum(extra), dtype=torch.float64)

    def _spent(self, tokens: float, chosen: float) -> dict[str, float]:
        routers = {"router": self.router.flops(tokens, chosen), "predictor": self._planned_router.flops(tokens)}
        return add_parts(self.branch.flops(chosen), routers)

    def flops(self, tokens: int) -> dict[str, float]:
        """Planned forward FLOPs of a row: the branch on k tokens (k x k attention), routers on all."""
        return self._spent(tokens, capacity_tokens(self.config.capacity, tokens))

    def step_cost(self, rows: int, context: int) -> StepCost:
        """Every row meets the routers; the capacity's share comes to the branch, and to as short a cache.

        Inside `expecting` it is another share.
        """
        judge, share = self._planned_router, self.expected_share
        weights = sum(p.numel() for module in (self.router, judge) for p in module.parameters())
        spent = self.router.flops(1, share) + judge.flops(1)
        branch = self.branch.step_cost(Visit(rows, share, share * context))
        return StepCost(weights, flops=rows * spent) + branch

    def active_params(self) -> float:
        routers = sum(p.numel() for m in (self.router, self.causal_routers) for p in m.parameters())
        return self.config.capacity * self.branch.active_params() + routers

    def moved_bytes(self, tokens: int) -> float:
        """Scores ranked (read once), k rows gathered (read, written) and scattered (two reads, one write)."""
        k = capacity_tokens(self.config.capacity, tokens)
        width = self.router.score.weight.numel()
        return 4.0 * (tokens + 5.0 * k * width) + self.branch.moved_bytes(k)


@contextmanager
def judged_by(model: nn.Module, name: str) -> Iterator[None]:
    """Inside, every depth-routed layer of `model` that has the causal router `name` decides by it."""
    layers = [m for m in model.modules() if isinstance(m, DepthRouted) and name in m.causal_routers]
    before = [layer.judge for layer in layers]
    for layer in layers:
        layer.judge = name
    try:
        yield
    finally:
        for layer, judge in zip(layers, before, strict=True):
            layer.judge = judge


@contextmanager
def expecting(model: nn.Module, share: float | None) -> Iterator[None]:
    """Inside, `step_cost` counts on `share` of the rows in every routed layer; None: on each layer's capacity."""
    layers = [m for m in model.modules() if isinstance(m, DepthRouted)]
    for layer in layers:
        layer.expected_share = layer.config.capacity if share is None else share
    try:
        yield
    finally:
        for layer in layers:
            layer.expected_share = layer.config.capacity


def judges(model: nn.Module) -> list[str]:
    """The causal routers that the depth-routed layers of `model` have, the one in use first."""
    layers = [m for m in model.modules() if isinstance(m, DepthRouted)]
    return sorted(layers[0].causal_routers, key=lambda name: name != layers[0].judge) if layers else []


@torch.no_grad()
def calibrate(model: nn.Module, tokens: Tensor) -> None:
    """Set the thresholds of `model`, if it has any, to let the capacity of `tokens` (B, T) through every routed block.

    One causal pass: each block is set on what the blocks before it, already set, hand it.
    """
    thresholds = [m for m in model.modules() if isinstance(m, Threshold)]
    if not thresholds:
        return
    model.eval()
    for threshold in thresholds:
        threshold.calibrating = True
    with judged_by(model, "threshold"):
        model(tokens, causal=True)
    for threshold in thresholds:
        threshold.calibrating = False


def _total(parts: dict[str, float]) -> float:
    return sum(parts.values())


def _real(choice: Tensor, valid: Tensor | None) -> Tensor:
    return choice if valid is None else choice & valid


def _mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    values = values.float()
    return values.mean() if valid is None else (values * valid).sum() / valid.sum().clamp(min=1)


def _where(choice: Tensor) -> tuple[Tensor, Tensor]:
    """choice (B, T) bool -> indices (B, S) of the chosen, ascending, then padding; which are chosen (B, S)."""
    counts = choice.sum(dim=-1, keepdim=True)
    widest = max(1, int(counts.max()))
    index = (~choice).to(torch.uint8).argsort(dim=-1, stable=True)[:, :widest]
    return index, torch.arange(widest, device=choice.device) < counts


def _membership(index: Tensor, chosen: Tensor | None, length: int) -> Tensor:
    """(B, T) bool: which positions `index` (B, S) names."""
    source = torch.ones_like(index, dtype=torch.bool) if chosen is None else chosen
    return torch.zeros(index.shape[0], length, dtype=torch.bool, device=index.device).scatter_(1, index, source)
