"""Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258): a branch that only some tokens go through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config import DepthConfig
from bench.methods.routers import ROUTERS, causal_router
from bench.model.block import Branch, Layer, add_parts
from bench.model.stream import Routing, Stream


def capacity_tokens(capacity: float, tokens: int) -> int:
    """How many of `tokens` a routed branch processes: 256 of 2048 at 12.5 %, and never none."""
    return max(1, round(capacity * int(tokens)))  # a traced shape is a tensor


class DepthRouted(Layer):
    """A layer that gives x + r * branch(x) to the chosen tokens of each row and x to the others.

    In training the k tokens with the highest scores are chosen, exactly k and in every row; in causal
    evaluation each token decides for itself. The branch sees the chosen tokens alone, in their order
    and with their original positions.
    """

    def __init__(self, branch: Branch, config: DepthConfig, d_model: int, context: int, layer: int):
        super().__init__()
        self.branch = branch
        self.config = config
        self.layer = layer
        self.router = ROUTERS[config.router](d_model, context, layer)
        self.causal_router = causal_router(config, d_model)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        scores, weights = self.router(x)
        causal_logits = self.causal_router(x, scores)
        chosen: Tensor | None
        if stream.causal:
            index, chosen = _where(_real(causal_logits > 0, stream.valid))
        else:
            index, chosen = self._top_k(scores, stream.valid)
        selected = _membership(index, chosen, x.shape[1])
        routing = self._report(weights, causal_logits, selected, stream)
        y = self._process(x, weights, index, chosen, stream)
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

    def _process(self, x: Tensor, weights: Tensor, index: Tensor, chosen: Tensor | None, stream: Stream) -> Tensor:
        batch, length, width = x.shape
        rows = torch.arange(batch, device=x.device).unsqueeze(1) * length
        flat = (index + rows).flatten()
        gathered = x.reshape(-1, width).index_select(0, flat).view(*index.shape, width)
        gates = weights.gather(1, index)
        if chosen is not None:
            gates = gates.masked_fill(~chosen, 0.0)
        added = self.branch(gathered, stream.select(index, chosen)) * gates.unsqueeze(-1).to(x.dtype)
        return x.reshape(-1, width).index_add(0, flat, added.reshape(-1, width).to(x.dtype)).view_as(x)

    def _report(self, weights: Tensor, causal_logits: Tensor, selected: Tensor, stream: Stream) -> Routing:
        routing = Routing(
            self.layer,
            selected=selected,
            weights=weights.detach(),
            causal_choice=_real(causal_logits.detach() > 0, stream.valid),
        )
        if not stream.causal and causal_logits.requires_grad:
            loss = F.binary_cross_entropy_with_logits(causal_logits, selected.to(causal_logits.dtype))
            scale = 1.0 if self.config.causal == "predictor" else self.config.causal_loss
            routing.losses["causal_loss"] = scale * loss
        if not stream.causal:
            agree = (causal_logits.detach() > 0) == selected
            routing.metrics["predictor_accuracy"] = _mean_over(agree, stream.valid)
        routing.metrics["fraction_processed"] = _mean_over(selected, stream.valid)
        return routing

    def _executed(self, selected: Tensor, stream: Stream) -> Tensor | None:
        """FLOPs beyond the plan where tokens choose for themselves; top-k executes the plan exactly."""
        if not stream.causal:
            return None
        planned = sum(self.branch.flops(capacity_tokens(self.config.capacity, selected.shape[1])).values())
        executed = [sum(self.branch.flops(count).values()) for count in selected.sum(dim=-1).tolist()]
        return torch.tensor(sum(executed) - planned * len(executed), dtype=torch.float64)

    def flops(self, tokens: int) -> dict[str, float]:
        """Planned forward FLOPs of a row: the branch on k tokens (k x k attention), routers on all."""
        routers = {"router": self.router.flops(tokens), "predictor": self.causal_router.flops(tokens)}
        return add_parts(self.branch.flops(capacity_tokens(self.config.capacity, tokens)), routers)

    def active_params(self) -> float:
        routers = sum(p.numel() for m in (self.router, self.causal_router) for p in m.parameters())
        return self.config.capacity * self.branch.active_params() + routers

    def moved_bytes(self, tokens: int, element_bytes: int) -> float:
        """Scores ranked (read once), k rows gathered (read, written) and scattered (two reads, one write)."""
        k = capacity_tokens(self.config.capacity, tokens)
        width = self.router.score.weight.numel()
        own = 4.0 * tokens + 5.0 * k * width * element_bytes
        return own + self.branch.moved_bytes(k, element_bytes)


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
