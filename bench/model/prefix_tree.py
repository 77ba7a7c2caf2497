"""Prefix trees: texts with a common beginning, which is read once, in the same pass as the rest.

A tree's tokens are in preorder and each text is a path from the root. So token m is seen by the tokens m to
ends[m] - 1, itself and its descendants. The same holds among the tokens that a router chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from bench.model.cache import Owner, attention

_TOKENS = 192  # of a tree of short texts: attention computes every pair of a tree's tokens, related or not
_QUERIES = 32  # in a block, on a CPU
_NOWHERE = 1 << 60  # the number of what pads a tree


@dataclass
class Tree:
    """Tokens in preorder; the place of a token is its index."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)  # a token's position in its texts
    ends: list[int] = field(default_factory=list)  # one past the place of a token's last descendant
    paths: dict[tuple[int, ...], list[int]] = field(default_factory=dict)  # text -> the places of its tokens

    def add(self, text: tuple[int, ...], trunk: list[int]) -> None:
        """Add a text that begins with the tokens at `trunk`."""
        new = range(len(self.tokens), len(self.tokens) + len(text) - len(trunk))
        self.tokens += text[len(trunk) :]
        self.depths += range(len(trunk), len(text))
        self.ends += [0] * len(new)
        self.paths[text] = [*trunk, *new]
        for place in self.paths[text]:
            self.ends[place] = len(self.tokens)


def grow(texts: Iterable[tuple[int, ...]]) -> Iterator[Tree]:
    """Trees that hold each distinct text once; none is empty.

    Texts with a common beginning share a tree, unless it exceeds both _TOKENS and twice the text. Beyond that, pairs
    of unrelated tokens cost more than reading the beginning again.
    """
    tree = Tree()
    last: tuple[int, ...] = ()
    for text in sorted(set(texts)):
        shared = _begin_alike(text, last)
        if not shared or len(tree.tokens) + len(text) - shared > max(_TOKENS, 2 * len(text)):
            if tree.tokens:
                yield tree
            tree, shared = Tree(), 0
        tree.add(text, tree.paths[last][:shared] if shared else [])
        last = text
    if tree.tokens:
        yield tree


def _begin_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    for at, (own, its) in enumerate(zip(one, other, strict=False)):
        if own != its:
            return at
    return min(len(one), len(other))


@dataclass(frozen=True)
class Branching:
    """Which tokens of some trees see each other: token n sees those m of its tree with m <= n < ends[m]."""

    trees: Tensor  # (N,) int64: which tree, ascending
    numbers: Tensor  # (N,) int64: n, counted through all trees
    ends: Tensor  # (N,) int64
    chains: bool  # no tree branches, so every earlier token is seen

    @classmethod
    def of(cls, trees: Sequence[Tree], device: torch.device) -> Branching:
        sizes = [len(tree.tokens) for tree in trees]
        starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        ends = [start + end for start, tree in zip(starts, trees, strict=True) for end in tree.ends]
        return cls(
            torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)], device=device),
            torch.arange(sum(sizes), device=device),
            torch.tensor(ends, device=device),
            all(end == size for size, tree in zip(sizes, trees, strict=True) for end in tree.ends),
        )

    def take(self, index: Tensor) -> Branching:
        return Branching(self.trees[index], self.numbers[index], self.ends[index], self.chains)

    def attend(self, owner: Owner, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (N, H, D / H), key and value (N, K, D / H) -> (N, H, D / H); nothing is kept."""
        slots, shape, bias = self._padded
        padded = [
            each.new_zeros(shape[0] * shape[1], *each.shape[1:]).index_copy_(0, slots, each).unflatten(0, shape)
            for each in (query, key, value)
        ]
        query, key, value = (each.transpose(1, 2) for each in padded)
        if bias is None:
            mixed = attention(query, key, value, is_causal=True)
        else:
            mixed = _attention_to_earlier(query, key, value, bias.to(query.dtype))
        return mixed.transpose(1, 2).flatten(0, 1).index_select(0, slots)

    @cached_property
    def _padded(self) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """Places of the tokens in trees of equal width, that shape (trees, width), and the bias of their scores."""
        counts = self.trees.bincount()
        shape = len(counts), int(counts.max())
        starts = counts.cumsum(0) - counts
        slots = torch.arange(len(self.trees), device=counts.device) - starts[self.trees] + self.trees * shape[1]
        if self.chains:
            return slots, shape, None
        padding = slots.new_full((shape[0] * shape[1],), _NOWHERE)
        numbers = padding.index_copy(0, slots, self.numbers).view(shape)
        ends = (padding + 1).index_copy(0, slots, self.ends).view(shape)  # padding sees padding: no row is empty
        at = numbers.unsqueeze(2)
        unseen = (numbers.unsqueeze(1) > at) | (at >= ends.unsqueeze(1))
        bias = torch.zeros(unseen.shape, device=unseen.device).masked_fill_(unseen, -torch.inf)
        return slots, shape, bias.unsqueeze(1)


def _attention_to_earlier(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention (B, heads, T, D / H) in which `bias` (B, 1, T, T) hides every later token.

    On a CPU by blocks of queries, each with the keys up to its own end: three quarters of the time at 144 tokens.
    """
    length = query.shape[2]
    width = _QUERIES if query.device.type == "cpu" else length
    blocks = [slice(start, min(length, start + width)) for start in range(0, length, width)]
    return torch.cat(
        [
            attention(query[:, :, own], key[:, :, : own.stop], value[:, :, : own.stop], bias[:, :, own, : own.stop])
            for own in blocks
        ],
        dim=2,
    )
