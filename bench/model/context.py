"""What a layer knows about its tokens, and what a router reports.

Shape letters, here and in every module of the model:
B rows, T positions, S selected positions, D d_model, H query heads, K key/value heads,
E experts, N tokens (B * T, or those of one call with a cache), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.model.cache import Arrivals
from bench.model.prefix_tree import Branching


@dataclass
class Routing:
    """What one router decided in one forward pass, whole rows without a cache.

    `losses` are added to the language-modelling loss; everything else is detached. A loss is a mean over rows of what
    each row gives by itself, so splitting a batch into micro-batches changes no gradient. Every field but `layer` is
    optional; docs/add_a_method.md says which figure needs which. `metrics` are columns of steps.csv, averaged over
    layers and micro-batches.
    """

    layer: int
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    selected: Tensor | None = None  # (B, T) bool: tokens that the branch processed
    scores: Tensor | None = None  # (B, T): what the depth router ranked them by; r for a learned one
    causal_choice: Tensor | None = None  # (B, T) bool: what the causal router would process
    expert_counts: Tensor | None = None  # (E + null experts,) choices of each expert
    experts: Tensor | None = None  # (B, T, k) int64: each token's choices, null experts numbered after the others
    lowest: Tensor | None = None  # (B, ...): in training, the lowest score that top-k took in each row
    executed_flops: Tensor | None = None  # forward FLOPs beyond the planned count (negative: fewer); None: as planned
    executed_backward_flops: Tensor | None = None  # the same of the backward pass; None: twice as many

    def beyond_plan(self) -> tuple[float, float]:
        """Forward and backward FLOPs beyond the planned counts."""
        forward = 0.0 if self.executed_flops is None else float(self.executed_flops)
        own = self.executed_backward_flops
        return forward, 2.0 * forward if own is None else float(own)


@dataclass
class TokenContext:
    """The tokens that pass a layer, apart from their hidden states.

    Without a cache: whole rows (B, T). Padding is at the end of a row, so causal attention needs no mask for it.
    With a cache: the new tokens (1, N) of all rows, one after the other and without padding; `arrivals` maps them to
    their rows. The tokens of prefix trees come in the same form.
    """

    positions: Tensor  # (B or 1, T) int64: the position of each token in its row
    rotary: Tensor  # (B or 1, T, 1, D / H / 2, 2): cosine and sine at those positions
    valid: Tensor | None = None  # (B, T) bool: False marks padding; None: no padding
    causal: bool = False  # route without looking at later tokens
    routings: list[Routing] = field(default_factory=list)
    arrivals: Arrivals | Branching | None = None

    def select(self, index: Tensor, valid: Tensor | None) -> TokenContext:
        """The context of the tokens at `index` (B, S) of whole rows; they keep their original positions."""
        rows = torch.arange(len(index), device=index.device).unsqueeze(1) if len(self.positions) > 1 else 0
        return replace(self, positions=self.positions[rows, index], rotary=self.rotary[rows, index], valid=valid)

    def take(self, index: Tensor) -> TokenContext:
        """The context of the tokens at `index` (S,) of the N that arrive."""
        assert self.arrivals is not None
        positions, rotary = self.positions[:, index], self.rotary[:, index]
        return replace(self, positions=positions, rotary=rotary, arrivals=self.arrivals.take(index))
