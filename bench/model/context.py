"""What a layer is told about the tokens it is handed, and what its routers report back.

Shape letters, here and in every module of the model:
B rows, T positions, S selected positions, D d_model, H query heads, K key/value heads,
E experts, N tokens (B * T, or as many as are read at once), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.model.cache import Arrivals
from bench.model.prefix_tree import Branching


@dataclass
class Routing:
    """What one router decided in one forward pass.

    `losses` are ready to be added to the language-modelling loss; all else is detached.
    `executed_flops` is what the pass spent *beyond* the planned count (negative: less), where the
    decision itself changes how much is computed; None where the plan is exact.
    """

    layer: int
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    selected: Tensor | None = None  # (B, T) bool: tokens that a depth-routed branch processed
    scores: Tensor | None = None  # (B, T): what the depth router ranked them by; r for a learned one
    causal_choice: Tensor | None = None  # (B, T) bool: what the causal router would process
    expert_counts: Tensor | None = None  # (E + no-ops,) choices each expert received
    experts: Tensor | None = None  # (B, T, k) int64: each token's choices, no-ops numbered after the experts
    executed_flops: Tensor | None = None


@dataclass
class Stream:
    """The tokens that travel through a layer, beside their hidden states.

    Whole rows (B, T) without a cache: padding stands at the end of a row, so causal attention over a
    row needs no mask for it. With a cache, new tokens (1, N) of all rows, one after the other and
    without padding; `arrivals` says whose they are. Likewise the tokens of trees.
    """

    positions: Tensor  # (B or 1, T) int64: where in its row each token stands
    rotary: Tensor  # (B or 1, T, 1, D / H / 2, 2): cosine and sine at those positions
    valid: Tensor | None = None  # (B, T) bool: False marks padding; None: no padding
    causal: bool = False  # route without looking at later tokens
    routings: list[Routing] = field(default_factory=list)
    arrivals: Arrivals | Branching | None = None

    def select(self, index: Tensor, valid: Tensor | None) -> Stream:
        """The stream of the tokens at `index` (B, S); they keep their original positions."""
        rows = torch.arange(len(index), device=index.device).unsqueeze(1) if len(self.positions) > 1 else 0
        return replace(self, positions=self.positions[rows, index], rotary=self.rotary[rows, index], valid=valid)

    def take(self, index: Tensor) -> Stream:
        """The tokens at `index` (S,) of those (N,) that arrive."""
        assert self.arrivals is not None
        positions, rotary = self.positions[:, index], self.rotary[:, index]
        return replace(self, positions=positions, rotary=rotary, arrivals=self.arrivals.take(index))
