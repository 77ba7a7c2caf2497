"""Continuing texts: read prompts into a cache, choose tokens, add them."""

from __future__ import annotations

import os.path
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.model.cache import KVCache
from bench.model.transformer import Transformer


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None = None) -> int:
    """A token from logits (V,): the most likely one at temperature or top_p 0, else drawn from the `top_p` nucleus.

    Nucleus: the fewest tokens whose probabilities sum to top_p (Holtzman et al. 2019, arXiv 1904.09751).
    """
    if temperature == 0 or top_p == 0:
        return int(logits.argmax())
    # Relative to the highest logit and in float64, so that no temperature is too small.
    below = (logits.double() - logits.max()) / temperature
    probabilities, tokens = below.softmax(dim=-1).sort(descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = probabilities.masked_fill(before >= top_p, 0.0).cpu()
    return int(tokens[torch.multinomial(nucleus, 1, generator=generator)])


def read_together(model: Transformer, rows: Sequence[Sequence[int]]) -> KVCache:
    """A cache that has read every row; their common beginning is read once."""
    common = os.path.commonprefix([list(row) for row in rows]) if len(rows) > 1 else []
    cache = KVCache(len(rows))
    if common:
        shared = KVCache(1)
        read(model, [common], shared, ())
        cache = shared.select([0] * len(rows))
    read(model, [row[len(common) :] for row in rows], cache, ())
    return cache


def read(
    model: Transformer, rows: Sequence[Sequence[int]], cache: KVCache, wanted: Sequence[int] | None = None
) -> Tensor:
    """`model.extend` on lists of tokens; logits (M, V), none if there is nothing to read."""
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int64, device=model.device)
    indices = None if wanted is None else torch.tensor(wanted, dtype=torch.int64, device=model.device)
    return model.extend(tokens, [len(row) for row in rows], cache, indices)


class Continuations:
    """Texts continued token by token, each independently; finished rows leave the batch.

    A text that fills the model's context continues from its second half; older tokens are dropped.
    """

    def __init__(self, model: Transformer, prompts: Sequence[Sequence[int]]):
        """Read the prompts, each of at least one token; only the end of one longer than the context."""
        self.model = model
        self.texts = [list(prompt[-model.context :]) for prompt in prompts]
        self.cache = read_together(model, [text[:-1] for text in self.texts])
        self.logits = read(model, [text[-1:] for text in self.texts], self.cache)  # (rows, V): the next tokens'

    def go_on(self, tokens: Sequence[int]) -> None:
        """Append the next token of every text."""
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)
        if max(self.cache.read, default=0) < self.model.context:
            self.logits = read(self.model, [[token] for token in tokens], self.cache)
        else:
            self._forget()

    def keep(self, rows: Sequence[int]) -> None:
        """Continue these texts only."""
        if list(rows) != list(range(len(self.texts))):
            self.texts = [self.texts[row] for row in rows]
            self.cache = self.cache.select(rows)
            self.logits = self.logits[list(rows)]

    def _forget(self) -> None:
        half = max(1, self.model.context // 2)
        kept = [text[-half:] if len(text) > self.model.context else text for text in self.texts]
        self.texts = kept
        self.cache = KVCache(len(kept))
        self.logits = read(self.model, kept, self.cache)
