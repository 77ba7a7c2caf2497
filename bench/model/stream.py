"""What a layer is told about the tokens it is handed, and what its routers report back.

Shape letters, here and in every module of the model:
B rows, T positions, S selected positions, D d_model, H query heads, K key/value heads,
E experts, N = B * T, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


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
    weights: Tensor | None = None  # (B, T): depth router weight r
    causal_choice: Tensor | None = None  # (B, T) bool: what the causal router would process
    expert_counts: Tensor | None = None  # (E + no-ops,) choices each expert received
    executed_flops: Tensor | None = None


@dataclass
class Stream:
    """The tokens that travel through a layer, beside their hidden states.

    Padding stands at the end of a row, so causal attention over a row needs no mask for it.
    """

    cosine: Tensor  # (B or 1, T, 1, D / H / 2): rotary tables at the tokens' original positions
    sine: Tensor
    valid: Tensor | None = None  # (B, T) bool: False marks padding; None: no padding
    causal: bool = False  # route without looking at later tokens
    routings: list[Routing] = field(default_factory=list)

    def select(self, index: Tensor, valid: Tensor | None) -> Stream:
        """The stream of the tokens at `index` (B, S); they keep their original positions."""
        batch, _, _, half = self.cosine.shape
        wide = index.unsqueeze(-1).unsqueeze(-1).expand(-1, -1, 1, half)
        cosine = self.cosine.expand(index.shape[0], -1, -1, -1) if batch == 1 else self.cosine
        sine = self.sine.expand(index.shape[0], -1, -1, -1) if batch == 1 else self.sine
        return Stream(
            cosine=torch.gather(cosine, 1, wide),
            sine=torch.gather(sine, 1, wide),
            valid=valid,
            causal=self.causal,
            routings=self.routings,
        )
