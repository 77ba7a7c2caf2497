"""A layer that runs its branch on chosen tokens only: what every method that skips tokens shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.methods.permute import take
from bench.model.attention import Attention
from bench.model.block import Branch, Layer, StepCost, Visit, add_parts, both_gradients
from bench.model.cache import Arrivals
from bench.model.context import Routing, TokenContext


def capacity_tokens(share: float, tokens: float) -> int:
    """How many of `tokens` a routed branch processes: 256 of 2048 at 12.5 %, and at least 1."""
    return max(1, round(share * int(tokens)))  # a traced shape is a tensor


@dataclass(frozen=True)
class Selection:
    """The chosen tokens of each row, in their order.

    index (B, S) int64: positions in the row. used (B, S) bool: False where a row has fewer than S tokens and `index`
    is padding; None: every row has S.
    """

    index: Tensor
    used: Tensor | None = None

    @classmethod
    def of(cls, chosen: Tensor) -> Selection:
        """From chosen (B, T) bool; S is the widest row's count, at least 1."""
        counts = chosen.sum(dim=-1, keepdim=True)
        widest = max(1, int(counts.max()))
        index = (~chosen).to(torch.uint8).argsort(dim=-1, stable=True)[:, :widest]
        return cls(index, torch.arange(widest, device=chosen.device) < counts)

    def membership(self, length: int) -> Tensor:
        """(B, T) bool: which positions are chosen."""
        source = torch.ones_like(self.index, dtype=torch.bool) if self.used is None else self.used
        empty = torch.zeros(self.index.shape[0], length, dtype=torch.bool, device=self.index.device)
        return empty.scatter_(1, self.index, source)


class RoutedLayer(Layer):
    """A layer that returns x + gate * branch(x) for the chosen tokens of each row, and x for the others.

    A method implements `choose`; also `gate` if it weights the branch, and `router_flops` if choosing takes matrix
    products. Gathering, FLOP counts, reports, padding, the KV cache and decoding are done here. The branch sees the
    chosen tokens only, in their order and with their original positions. Masked decoding (all rows computed, the chosen
    ones used) was slower on 2 CPU cores at every batch size and context that `+study=decode` timed.
    """

    layer: int

    def __init__(self, branch: Branch, d_model: int, layer: int, share: float):
        """`share`: expected share of a row's tokens that are chosen, which the plan counts with."""
        super().__init__()
        self.branch = branch
        for module in branch.modules():
            if isinstance(module, Attention):
                module.some_skip = True
        self.d_model = d_model
        self.layer = layer
        self.share = share
        self.expected_share = share  # of rows in a decoding step

    def choose(self, x: Tensor, context: TokenContext) -> Tensor:
        """x (B, T, D) -> (B, T) bool: the tokens that pass the branch.

        A token's choice may use its own x and its position `context.positions` (B or 1, T), nothing of other tokens:
        in decoding, x (1, N, D) holds tokens of several rows. x has read earlier tokens through attention already.
        """
        raise NotImplementedError

    def gate(self, taken: Tensor) -> Tensor:
        """taken (B, S, D), the chosen tokens -> (B, S) float32: what the branch's output is multiplied by."""
        return torch.ones(taken.shape[:-1], device=taken.device)

    def router_flops(self, tokens: float, chosen: float) -> dict[str, float]:
        """Forward FLOPs of choosing among `tokens` tokens and gating `chosen` of them, by part."""
        return {}

    def router_backward_flops(self, tokens: float, chosen: float) -> dict[str, float]:
        """The same of the backward pass. Override it for a product that only chooses: it has no gradient."""
        return both_gradients(self.router_flops(tokens, chosen))

    def route(self, x: Tensor, context: TokenContext) -> tuple[Selection, Routing]:
        """The selection among whole rows x (B, T, D), and what is reported of it.

        Override it only for a layer that `looks_ahead`: one whose choice in training differs from `choose`.
        """
        chosen = real(self.choose(x, context), context.valid)
        routing = Routing(self.layer, selected=chosen)
        routing.metrics["fraction_processed"] = mean_over(chosen, context.valid)
        return Selection.of(chosen), routing

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if context.arrivals is not None:
            return self._extend(x, context)
        selection, routing = self.route(x, context)
        y = self._process(x, selection, context)
        self._state_executed(routing, x, selection)
        context.routings.append(routing)
        return y

    def _process(self, x: Tensor, selection: Selection, context: TokenContext) -> Tensor:
        batch, length, width = x.shape
        rows = torch.arange(batch, device=x.device).unsqueeze(1) * length
        flat = (selection.index + rows).flatten()
        stays, taken = take(x.reshape(-1, width), flat)
        taken = taken.view(*selection.index.shape, width)
        gates = self.gate(taken)
        if selection.used is not None:
            gates = gates.masked_fill(~selection.used, 0.0)
        added = self.branch(taken, context.select(selection.index, selection.used)) * gates.unsqueeze(-1).to(x.dtype)
        return stays.index_add(0, flat, added.reshape(-1, width).to(x.dtype)).view_as(x)

    def _extend(self, x: Tensor, context: TokenContext) -> Tensor:
        """Tokens x (1, N, D) of rows that are read in pieces, or of prefix trees, each choosing for itself."""
        chosen = self.choose(x, context)[0]
        if isinstance(context.arrivals, Arrivals) and context.arrivals.masked:
            staying = replace(context, arrivals=context.arrivals.stay(chosen))
            gates = self.gate(x) * chosen
            return x + self.branch(x, staying) * gates.unsqueeze(-1).to(x.dtype)
        index = chosen.nonzero().squeeze(1)
        if len(index) == len(chosen):
            return x + self.branch(x, context) * self.gate(x).unsqueeze(-1).to(x.dtype)
        if not len(index):
            return x
        taken = x[:, index]
        added = self.branch(taken, context.take(index)) * self.gate(taken).unsqueeze(-1).to(x.dtype)
        return x.index_add(1, index, added.to(x.dtype))

    def _state_executed(self, routing: Routing, x: Tensor, selection: Selection) -> None:
        """FLOPs beyond the plan; padding of rows with fewer chosen tokens is executed, so it counts."""
        rows, tokens, _ = x.shape
        planned, chosen = capacity_tokens(self.share, tokens), int(selection.index.shape[1])
        if chosen == planned:
            return
        extra = [rows * (sum(spent(tokens, chosen).values()) - sum(spent(tokens, planned).values()))
                 for spent in (self._spent, self._spent_backward)]  # fmt: skip
        routing.executed_flops, routing.executed_backward_flops = torch.tensor(extra, dtype=torch.float64)

    def _spent(self, tokens: float, chosen: float) -> dict[str, float]:
        return add_parts(self.branch.flops(chosen), self.router_flops(tokens, chosen))

    def _spent_backward(self, tokens: float, chosen: float) -> dict[str, float]:
        return add_parts(self.branch.backward_flops(chosen), self.router_backward_flops(tokens, chosen))

    def flops(self, tokens: float) -> dict[str, float]:
        """Planned forward FLOPs of a row: the branch on k tokens (k x k attention), the router on all."""
        return self._spent(tokens, capacity_tokens(self.share, tokens))

    def backward_flops(self, tokens: float) -> dict[str, float]:
        return self._spent_backward(tokens, capacity_tokens(self.share, tokens))

    def step_cost(self, rows: int, context: int) -> StepCost:
        """Every row pays for the router; a share of them reaches the branch, whose cache is shorter by that share.

        Inside `expecting` the share is another one.
        """
        share = self.expected_share
        spent = sum(self.router_flops(1, share).values())
        branch = self.branch.step_cost(Visit(rows, share, share * context))
        return StepCost(self._own_params(), flops=rows * spent) + branch

    def active_params(self) -> float:
        return self.share * self.branch.active_params() + self._own_params()

    def _own_params(self) -> int:
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("branch."))

    def moved_bytes(self, tokens: int) -> float:
        """Scores ranked (read once), k rows gathered (read, written) and scattered (two reads, one write)."""
        k = capacity_tokens(self.share, tokens)
        return 4.0 * (tokens + 5.0 * k * self.d_model) + self.branch.moved_bytes(k)


@contextmanager
def expecting(model: nn.Module, share: float | None) -> Iterator[None]:
    """Inside, `step_cost` assumes `share` of the rows in every routed layer; None: each layer's planned share."""
    layers = [m for m in model.modules() if isinstance(m, RoutedLayer)]
    for layer in layers:
        layer.expected_share = layer.share if share is None else share
    try:
        yield
    finally:
        for layer in layers:
            layer.expected_share = layer.share


def real(choice: Tensor, valid: Tensor | None) -> Tensor:
    """`choice` (B, T) bool without padding."""
    return choice if valid is None else choice & valid


def mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of values (B, T) over the tokens that are no padding."""
    values = values.float()
    return values.mean() if valid is None else (values * valid).sum() / valid.sum().clamp(min=1)
