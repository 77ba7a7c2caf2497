"""The audit: what comes after a token must not change what the model says at it."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.model import Transformer
from bench.records.record import Causality

TOLERANCE = 1e-4  # float32 sums over the same numbers in another order stay well below this


@torch.no_grad()
def audit(model: Transformer, tokens: Tensor, seed: int = 0, cuts: int = 4) -> Causality:
    """Change the tokens (B, T) after each of `cuts` positions t; compare the causal logits up to t.

    The changed tail is random, so a router that looks ahead meets other tokens there.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
    before = model.causal_logits(tokens, lengths)
    changes = []
    for cut in torch.linspace(0, tokens.shape[1] - 2, cuts).long().tolist():
        changed = tokens.clone()
        tail = torch.randint(model.vocab_size, tokens[:, cut + 1 :].shape, generator=generator)
        changed[:, cut + 1 :] = tail.to(tokens.device)
        after = model.causal_logits(changed, lengths)
        changes.append((after - before)[:, : cut + 1].abs().max())
    largest = torch.stack(changes).max().item()  # NaN where any is, which is not a pass
    return Causality(max_abs_logit_change=largest, tolerance=TOLERANCE, passed=largest <= TOLERANCE)
