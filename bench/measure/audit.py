"""The causality audit: every way in which a model is read, against one that cannot see ahead; a check of methods.

Quality is measured on padded batches, lm-eval's scores come from prefix trees, and a user may read one row. The
reference reads the same rows into a KV cache, token by token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bench.config.schema import MethodConfig, ModelConfig
from bench.flops.trace import check_counts
from bench.methods import build_model
from bench.model import Transformer
from bench.model.cache import KVCache
from bench.model.prefix_tree import grow
from bench.records.record import Causality

TOLERANCE = 1e-4  # float32 sums of the same numbers in another order stay well below this
_VOCABULARY = 64  # of the check of methods
_DRAWS = 6  # of the weights, at most

Text = tuple[int, int]  # a row of those audited, and how many of its tokens
Found = Iterator[tuple[int, Tensor]]  # a row, and its logits (n, V) at positions 0 to n - 1


@torch.no_grad()
def audit(model: Transformer, tokens: Tensor, seed: int = 0, rows_at_once: int = 16) -> Causality:
    """Compare the causal logits at every position of `tokens` (B, T), and of B rows of random tokens, which are rare
    in text; in batches of up to `rows_at_once` rows.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = audited_rows(tokens, model.vocab_size, generator)
    texts = _texts(rows.shape[0], rows.shape[1], generator)
    model.eval()
    differences = lasting(model, lambda each: _differences(each, rows, texts, rows_at_once), TOLERANCE)
    largest = differences.max().item()  # NaN if any is NaN, and then the audit fails
    number, row, position = (int(each) for each in torch.unravel_index(differences.argmax(), differences.shape))
    return Causality(
        max_abs_logit_change=largest,
        tolerance=TOLERANCE,
        passed=largest <= TOLERANCE,
        by_pass=dict(zip(PASSES, differences.amax(dim=(1, 2)).tolist(), strict=True)),
        positions=rows.numel(),
        worst_pass=list(PASSES)[number],
        worst_row=row,
        worst_position=position,
    )


@torch.no_grad()
def lasting(model: Transformer, differences: Callable[[Transformer], Tensor], tolerance: float) -> Tensor:
    """The differences (any shape) between two ways of computing the same, without those by a router's near tie.

    A router can be so undecided about a token that rounding decides, and then two correct passes differ. With slightly
    different weights it is undecided about other tokens, but an error stays where it is. So differences beyond
    `tolerance` are computed again with weights changed by 0.1 %; each element's smallest counts.
    """
    found = differences(model)
    for draw in range(1, _DRAWS):
        if found.max() <= tolerance:
            break
        found = torch.minimum(found, differences(_perturbed(model, draw)))
    return found


def _perturbed(model: Transformer, seed: int) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    for parameter in changed.parameters():
        parameter.mul_(1 + 1e-3 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return changed


def audited_rows(tokens: Tensor, vocab_size: int, generator: torch.Generator) -> Tensor:
    """`tokens` (B, T) and as many rows of random tokens, the last of which begins like the first row: (2 B, T).

    Random tokens repeat only after the whole vocabulary has come.
    """
    rows, length = tokens.shape
    rounds = -(-tokens.numel() // vocab_size)
    random = torch.cat([torch.randperm(vocab_size, generator=generator) for _ in range(rounds)])
    random = random[: tokens.numel()].view(rows, length).to(tokens.device)
    random[-1, : length // 2] = tokens[0, : length // 2]
    return torch.cat([tokens, random])


def _texts(rows: int, length: int, generator: torch.Generator) -> list[Text]:
    """Every row whole and at two more lengths, all of them different, and one token alone, in random order."""
    texts = [(0, 1)]
    for row in range(rows):
        texts += [(row, length), (row, max(1, length - 1 - row)), (row, max(1, length * (row + 1) // (rows + 1)))]
    return [texts[number] for number in torch.randperm(len(texts), generator=generator).tolist()]


def _differences(model: Transformer, rows: Tensor, texts: Sequence[Text], rows_at_once: int) -> Tensor:
    """(passes, rows, T): the largest difference of a logit from the reference, over the texts of a row; relative to
    the position's largest logit if that exceeds 1, because rounding grows with it.
    """
    reference = _extended(model, rows)
    scale = reference.abs().amax(dim=-1).clamp(min=1)
    largest = torch.zeros(len(PASSES), *rows.shape, device=rows.device)
    for own, read in zip(largest, PASSES.values(), strict=True):
        for row, logits in read(model, rows, texts, rows_at_once):
            seen = slice(len(logits))
            differences = (logits - reference[row, seen]).abs().amax(dim=-1) / scale[row, seen]
            own[row, seen] = torch.maximum(own[row, seen], differences)
    return largest


def _extended(model: Transformer, rows: Tensor) -> Tensor:
    """The reference (rows, T, V), token by token: when a position is read, the model has not been given a later one."""
    cache, counts = KVCache(len(rows)), [1] * len(rows)
    return torch.stack([model.extend(tokens, counts, cache) for tokens in rows.t()], dim=1)


def _whole(model: Transformer, rows: Tensor, texts: Sequence[Text], rows_at_once: int) -> Found:
    for part in torch.arange(len(rows)).split(rows_at_once):
        lengths = torch.full((len(part),), rows.shape[1], device=rows.device)
        yield from zip(part.tolist(), model.causal_logits(rows[part], lengths), strict=True)


def _padded(model: Transformer, rows: Tensor, texts: Sequence[Text], rows_at_once: int) -> Found:
    """Several lengths in one batch: with whole rows, and without."""
    shorter = [(row, length) for row, length in texts if length < rows.shape[1]]
    for chosen in (texts, shorter):
        for start in range(0, len(chosen), rows_at_once):
            own, lengths = torch.tensor(chosen[start : start + rows_at_once], device=rows.device).t()
            valid = torch.arange(int(lengths.max()), device=rows.device) < lengths.unsqueeze(1)
            logits = model.causal_logits(rows[own, : valid.shape[1]].masked_fill(~valid, 0), lengths)
            for row, length, each in zip(own.tolist(), lengths.tolist(), logits, strict=True):
                yield row, each[:length]


def _alone(model: Transformer, rows: Tensor, texts: Sequence[Text], rows_at_once: int) -> Found:
    for row, length in texts:
        yield row, model(rows[row : row + 1, :length], causal=True)[0][0].float()


def _trees(model: Transformer, rows: Tensor, texts: Sequence[Text], rows_at_once: int) -> Found:
    """As lm-eval's requests are read: trees with branches, of which some logits are wanted, and without any branch."""
    named = {(row, length): tuple(rows[row, :length].tolist()) for row, length in texts}
    apart = set({text[0]: row for (row, _), text in named.items()}.values())  # rows that begin differently
    unbranched = [text for (row, _), text in named.items() if row in apart]
    for chosen, parts in ((list(named.values()), 2), (unbranched, 1)):
        trees, paths, start = list(grow(chosen)), dict[tuple[int, ...], Tensor](), 0
        for tree in trees:
            paths |= {text: torch.tensor(path, device=rows.device) + start for text, path in tree.paths.items()}
            start += len(tree.tokens)
        places = torch.arange(start, device=rows.device)
        logits = torch.empty(start, model.vocab_size, device=rows.device)
        for part in range(parts):
            logits[part::parts] = model.tree_logits(trees, places[part::parts])
        yield from ((row, logits[paths[text]]) for (row, _), text in named.items() if text in paths)


PASSES: dict[str, Callable[[Transformer, Tensor, Sequence[Text], int], Found]] = {
    "whole rows": _whole,
    "padded rows": _padded,
    "rows alone": _alone,
    "prefix trees": _trees,
}


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
    assert outcome.passed, outcome.failure
    with torch.no_grad():
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
