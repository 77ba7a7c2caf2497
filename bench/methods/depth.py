"""Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258): a branch that only some tokens pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import DepthConfig
from bench.methods.routed import RoutedLayer, Selection, capacity_tokens, mean_over, real
from bench.methods.routers import (
    ROUTERS,
    CausalRouter,
    ExpertThreshold,
    Threshold,
    causal_routers,
    default_causal_router,
    lowest_chosen,
)
from bench.model.block import Branch
from bench.model.context import Routing, TokenContext


class DepthRouted(RoutedLayer):
    """A routed layer whose router ranks the tokens of each row: x + r * branch(x) for those it chooses.

    In training the k tokens with the highest scores are chosen, exactly k in every row. In causal evaluation each
    token chooses for itself, by the causal router `causal_router_name`.
    """

    looks_ahead = True

    def __init__(self, branch: Branch, config: DepthConfig, d_model: int, context: int, layer: int):
        """`context`: the model's context length, in tokens."""
        super().__init__(branch, d_model, layer, config.capacity)
        self.config = config
        self.router = ROUTERS[config.router](d_model, context, layer)
        self.causal_routers = nn.ModuleDict(causal_routers(config, d_model))
        self.causal_router_name = default_causal_router(config)

    @property
    def causal_router(self) -> CausalRouter:
        """The causal router in use."""
        return cast(CausalRouter, self.causal_routers[self.causal_router_name])

    def choose(self, x: Tensor, context: TokenContext) -> Tensor:
        router = self.causal_router
        scores = self.router.rank(x, context.positions) if router.reads_scores else None
        return router(x, scores) > 0

    def gate(self, taken: Tensor) -> Tensor:
        return self.router.gate(taken)

    def router_flops(self, tokens: float, chosen: float) -> dict[str, float]:
        """Of the router and of the configuration's causal router, whichever one is in use."""
        router = self.router.rank_flops(tokens) + self.router.gate_flops(chosen)
        return {"router": router, "predictor": self._planned_causal_router.flops(tokens)}

    def router_backward_flops(self, tokens: float, chosen: float) -> dict[str, float]:
        """The gate learns from the loss. The ranking does so only if the causal router's loss reaches the scores."""
        causal = self._planned_causal_router
        ranked = tokens if causal.teaches_scores else 0
        router = 2.0 * (self.router.rank_flops(ranked) + self.router.gate_flops(chosen))
        return {"router": router, "predictor": causal.backward_flops(tokens)}

    @property
    def _planned_causal_router(self) -> CausalRouter:
        return cast(CausalRouter, self.causal_routers[default_causal_router(self.config)])

    def route(self, x: Tensor, context: TokenContext) -> tuple[Selection, Routing]:
        scores = self.router.rank(x, context.positions)
        causal_logits = self.causal_router(x, scores)
        if context.causal:
            selection = Selection.of(real(causal_logits > 0, context.valid))
        else:
            selection = self._top_k(scores, context.valid)
        return selection, self._report(scores, causal_logits, selection.membership(x.shape[1]), context)

    def _top_k(self, scores: Tensor, valid: Tensor | None) -> Selection:
        """The k highest scores of each row.

        A padded row has the capacity of its real tokens, and padding uses none of it.
        """
        k = capacity_tokens(self.share, scores.shape[1])
        if valid is None:
            return Selection(scores.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values)
        quota = (self.share * valid.sum(dim=-1, keepdim=True)).round().clamp(min=1)
        ranked = scores.masked_fill(~valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        rank = torch.empty_like(ranked).scatter_(1, ranked, torch.arange(ranked.shape[1]).to(ranked).expand_as(ranked))
        return Selection.of(real(rank < quota, valid))

    def _report(self, scores: Tensor, causal_logits: Tensor, selected: Tensor, context: TokenContext) -> Routing:
        choice = real(causal_logits.detach() > 0, context.valid)
        routing = Routing(self.layer, selected=selected, scores=scores.detach(), causal_choice=choice)
        routing.metrics["fraction_processed"] = mean_over(selected, context.valid)
        if context.causal:
            return routing
        if not isinstance(self.causal_router, Threshold):  # which is calibrated after training
            routing.metrics["predictor_accuracy"] = mean_over(choice == selected, context.valid)
        if self.training:
            self._learn(routing, scores, causal_logits, selected)
        return routing

    def _learn(self, routing: Routing, scores: Tensor, causal_logits: Tensor, selected: Tensor) -> None:
        """Train the causal routers on a training pass."""
        if self.causal_router_name in ("predictor", "bce"):
            loss = F.binary_cross_entropy_with_logits(causal_logits, selected.to(causal_logits.dtype))
            own = self.causal_router_name == "bce"
            routing.losses["causal_loss"] = self.config.causal_loss * loss if own else loss
        if "expert_threshold" in self.causal_routers:
            running = cast(ExpertThreshold, self.causal_routers["expert_threshold"])
            scores = scores.detach()
            routing.metrics["expert_threshold_accuracy"] = ((scores > running.value) == selected).float().mean()
            routing.lowest = lowest_chosen(scores, selected)

    def after_step(self, routings: list[Routing]) -> None:
        """The running threshold follows all rows of the step."""
        lowest = [r.lowest for r in routings if r.selected is not None and r.lowest is not None]
        if lowest:  # experts inside report under the same number, but select no tokens
            cast(ExpertThreshold, self.causal_routers["expert_threshold"]).follow(torch.cat(lowest))


@contextmanager
def using_causal_router(model: nn.Module, name: str) -> Iterator[None]:
    """Inside, every depth-routed layer of `model` that has the causal router `name` uses it."""
    layers = [m for m in model.modules() if isinstance(m, DepthRouted) and name in m.causal_routers]
    before = [layer.causal_router_name for layer in layers]
    for layer in layers:
        layer.causal_router_name = name
    try:
        yield
    finally:
        for layer, previous in zip(layers, before, strict=True):
            layer.causal_router_name = previous


def causal_router_names(model: nn.Module) -> list[str]:
    """The causal routers that the depth-routed layers of `model` have, the one in use first."""
    layers = [m for m in model.modules() if isinstance(m, DepthRouted)]
    return sorted(layers[0].causal_routers, key=lambda name: name != layers[0].causal_router_name) if layers else []


@torch.no_grad()
def calibrate(model: nn.Module, tokens: Tensor) -> None:
    """Set the thresholds of `model`, if it has any, so that the capacity of `tokens` (B, T) passes every routed block.

    One causal pass: each block is calibrated on the output of the blocks before it, which are calibrated already.
    """
    thresholds = [m for m in model.modules() if isinstance(m, Threshold)]
    if not thresholds:
        return
    model.eval()
    for threshold in thresholds:
        threshold.calibrating = True
    with using_causal_router(model, "threshold"):
        model(tokens, causal=True)
    for threshold in thresholds:
        threshold.calibrating = False
