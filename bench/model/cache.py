"""The KV cache: the keys and values that each attention layer holds of each row.

A token that skips a layer leaves no key and no value there, so every layer has its own length in every
row. New tokens arrive packed, row by row and in order, without padding; each carries its original
position in its keys (RoPE), so index order in the cache is position order, and "the first n" is a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.model.layer_cache import LayerCache, PackedCache, PaddedCache

_MASK_ELEMENTS = 1 << 24  # rows of ragged new tokens are attended together up to this size of mask


class Owner(Protocol):
    """An attention layer, as the cache knows it."""

    some_skip: bool  # not every token comes


class KVCache:
    """The keys and values of `rows` texts that a model reads in pieces.

    masked: a decoding step computes every row in every block and uses the routed ones, instead of computing only
    those. Shapes are then static, and all layers hold their tokens padded.
    """

    def __init__(self, rows: int, masked: bool = False):
        self.rows = rows
        self.masked = masked
        self.read = [0] * rows  # tokens read so far, by row: the position of the next one
        self.layers: dict[Owner, LayerCache] = {}

    def layer(self, owner: Owner, like: Tensor) -> LayerCache:
        """The part that belongs to the attention layer `owner`, whose keys look `like` (N, K, D / H)."""
        if owner not in self.layers:
            self.layers[owner] = self._kind(owner)(self.rows, like)
        return self.layers[owner]

    def _kind(self, owner: Owner) -> type[LayerCache]:
        scattered = owner.some_skip and self.rows > 1 and not self.masked
        return PackedCache if scattered else PaddedCache

    def select(self, rows: Sequence[int]) -> KVCache:
        """A cache of `rows`, in that order; a row may be dropped or copied."""
        copy = KVCache(len(rows), self.masked)
        copy.read = [self.read[row] for row in rows]
        for owner, layer in self.layers.items():
            index = torch.tensor(rows, dtype=torch.int64, device=layer.lengths.device)
            copy.layers[owner] = layer.select(index, copy._kind(owner))
        return copy

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Inside, an error takes back what was appended, in every layer: some may not have been reached."""
        before = {owner: layer.held for owner, layer in self.layers.items()}
        try:
            yield
        except BaseException:
            self.layers = {owner: self.layers[owner] for owner in before}
            for owner, held in before.items():
                self.layers[owner].held = held
            raise

    @property
    def allocated_bytes(self) -> int:
        """Bytes of keys, values and their index, room for growth included."""
        return sum(layer.allocated_bytes for layer in self.layers.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values held."""
        return sum(layer.held_bytes for layer in self.layers.values())


@dataclass(frozen=True)
class Arrivals:
    """The rows of new tokens: token n belongs to row rows[n], in order of rows and positions."""

    cache: KVCache
    rows: Tensor  # (N,) int64
    step: bool  # no row has more than one of them: a decoding step
    whole: bool  # a step in which every row has one
    staying: Tensor | None = None  # (N,) bool: tokens whose key and value are kept; None: all

    @property
    def masked(self) -> bool:
        """Whether all rows are computed, those that a router skips too."""
        return self.step and self.cache.masked

    def take(self, index: Tensor) -> Arrivals:
        return replace(self, rows=self.rows[index], whole=False)

    def stay(self, staying: Tensor) -> Arrivals:
        return replace(self, staying=staying)

    def attend(self, owner: Owner, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append key and value (N, K, D / H) and attend with query (N, H, D / H) -> (N, H, D / H)."""
        layer = self.cache.layer(owner, key)
        if self.step:
            return self._attend_step(layer, query, key, value)
        return self._attend_prompt(layer, query, key, value)

    def _attend_step(self, layer: LayerCache, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = None if self.whole else self.rows
        if layer.even and self.whole and self.staying is None:
            layer.append(key, value)
            length, mask = layer.longest, None
        else:
            lengths = layer.lengths
            slots = lengths[self.rows]
            length = int(slots.max()) + 1
            layer.write(self.rows, slots, key, value)
            stay = torch.ones_like(slots) if self.staying is None else self.staying.long()
            layer.hold(lengths.index_add(0, self.rows, stay))
            mask = (torch.arange(length, device=slots.device) <= slots.unsqueeze(1)).view(-1, 1, 1, length)
        return attention(query.unsqueeze(2), *layer.read(length, rows), mask).squeeze(2)

    def _attend_prompt(self, layer: LayerCache, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        counts = self.rows.bincount(minlength=self.cache.rows)
        before = layer.lengths
        offset = torch.arange(len(self.rows), device=counts.device) - (counts.cumsum(0) - counts)[self.rows]
        layer.write(self.rows, before[self.rows] + offset, key, value)
        layer.hold(before + counts)
        padded = query.new_zeros(self.cache.rows, int(counts.max()), *query.shape[1:])
        padded[self.rows, offset] = query
        mixed = _attend_ragged(padded, layer, before)
        return mixed[self.rows, offset]


def _attend_ragged(query: Tensor, layer: LayerCache, before: Tensor) -> Tensor:
    """query (B, T, H, D / H): token t of row b sees the first before[b] + t + 1 keys of its row."""
    width, length = query.shape[1], layer.longest
    query, (keys, values) = query.transpose(1, 2), layer.read(length)
    if not before.any():  # the usual causal mask: padding is at the end
        return attention(query, keys, values, is_causal=True).transpose(1, 2)
    seen = before.unsqueeze(1) + torch.arange(width, device=before.device)
    mixed = []
    for rows in torch.arange(len(query)).split(max(1, _MASK_ELEMENTS // (width * length))):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        mask = (torch.arange(length, device=before.device) <= seen[part].unsqueeze(-1)).unsqueeze(1)
        mixed.append(attention(query[part], keys[part], values[part], mask))
    return torch.cat(mixed).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """SDPA on (B, heads, T, D / H), grouped where there are fewer key heads than query heads."""
    grouped = bool(query.shape[1] != key.shape[1])  # a traced shape is a tensor
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, enable_gqa=grouped)
