"""Audits of a model: causality, and everything else that the contract of layers promises."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.schema import MethodConfig, ModelConfig
from bench.flops.trace import check_counts
from bench.methods import build_model
from bench.model import Transformer
from bench.model.cache import KVCache
from bench.records.record import Causality

TOLERANCE = 1e-4  # float32 sums of the same numbers in another order stay well below this
_VOCABULARY = 64


@torch.no_grad()
def audit(model: Transformer, tokens: Tensor, seed: int = 0, cuts: int = 4) -> Causality:
    """Change the tokens (B, T) after each of `cuts` positions t; compare the causal logits up to t.

    The changed tail is random, so a router that looks ahead sees other tokens there.
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
    largest = torch.stack(changes).max().item()  # NaN if any is NaN, and then the audit fails
    return Causality(max_abs_logit_change=largest, tolerance=TOLERANCE, passed=largest <= TOLERANCE)


def check_method(method: MethodConfig, model: ModelConfig | None = None) -> None:
    """Check what every method promises, on a small model with random tokens; for the test of a new method.

    The FLOP counts agree; every parameter has a finite gradient; causal logits do not depend on later tokens, padding
    or the rest of the batch; decoding with a KV cache, gathered and masked, equals whole rows; the expected cost of a
    decoding step is finite. Raises AssertionError, or UserError for FLOP counts.
    """
    shape = model or ModelConfig(n_layers=4, d_model=32, n_heads=4, context=24)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(_VOCABULARY, (3, shape.context), generator=generator)
    network = build_model(shape, method, _VOCABULARY)
    for parameter in network.parameters():  # large enough that every layer changes the logits
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.25, generator=generator)
    check_counts(method.name, network, tokens)

    logits, routings = network.train()(tokens)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    (loss + sum(value for routing in routings for value in routing.losses.values())).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"

    outcome = audit(network.eval(), tokens)
    assert outcome.passed, f"causal logits change by {outcome.max_abs_logit_change:.2g} when later tokens change"
    lengths = [shape.context, shape.context // 2, 1]
    with torch.no_grad():
        together = network.causal_logits(tokens, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = network.causal_logits(tokens[row : row + 1, :length], torch.tensor([length]))[0]
            _assert_equal(together[row, :length], alone, "a padded row in a batch", "the row alone")
        whole = network.causal_logits(tokens, torch.full((3,), shape.context))
        for masked in (False, True):
            decoded = _in_pieces(network, tokens, KVCache(3, masked))
            _assert_equal(decoded, whole, "masked decoding" if masked else "decoding", "whole rows")
    cost = network.step_cost(2, shape.context)
    assert 0 < cost.flops < float("inf") and cost.weights > 0, "step_cost is not a positive number"


def _in_pieces(model: Transformer, tokens: Tensor, cache: KVCache) -> Tensor:
    """Causal logits (B, T, V) of `tokens` (B, T): a third of each row at once, then token by token."""
    rows, length = tokens.shape
    pieces = [tokens[:, : length // 3], *tokens[:, length // 3 :].split(1, dim=1)]
    found = []
    for piece in pieces:
        wanted = torch.arange(piece.numel())
        logits = model.extend(piece.flatten(), [piece.shape[1]] * rows, cache, wanted)
        found.append(logits.unflatten(0, piece.shape))
    return torch.cat(found, dim=1)


def _assert_equal(own: Tensor, other: Tensor, what: str, as_what: str) -> None:
    largest = (own - other).abs().max().item()
    assert largest <= TOLERANCE, f"logits of {what} differ from those of {as_what} by {largest:.2g}"
