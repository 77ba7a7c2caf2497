"""The KV cache: what each attention layer keeps of each row, and nothing of what it never saw.

A token that skips a layer leaves no key and no value there, so every layer has its own length in every
row. New tokens arrive packed, row by row and in order, without padding; each carries its original
position in its keys (RoPE), so index order in the cache is position order, and "the first n" is a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROWTH = 8  # storage grows by an eighth, in steps of _STEP tokens: little is allocated that is not used
_STEP = 8
_MASK_ELEMENTS = 1 << 24  # rows of ragged new tokens are attended together up to this size of mask


class LayerCache:
    """Keys and values (B, K, L, D / H) of one attention layer; row b holds `lengths[b]` of them.

    What stands past a row's length is finite but meaningless, and always masked.
    """

    def __init__(self, rows: int, heads: int, head_dim: int, like: Tensor):
        self.keys = like.new_zeros(rows, heads, 0, head_dim)
        self.values = like.new_zeros(rows, heads, 0, head_dim)
        self.longest = 0
        self.even = True  # every row holds `longest`: no mask is needed, and `lengths` is not kept up to date
        self._lengths = torch.zeros(rows, dtype=torch.int64, device=like.device)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: keys of each row."""
        return torch.full_like(self._lengths, self.longest) if self.even else self._lengths

    @property
    def held(self) -> tuple[Tensor, int, bool]:
        """How much there is: what is appended later stands behind it."""
        return self._lengths, self.longest, self.even

    @held.setter
    def held(self, held: tuple[Tensor, int, bool]) -> None:
        self._lengths, self.longest, self.even = held

    def hold(self, lengths: Tensor) -> None:
        """Rows now have `lengths` (B,)."""
        self._lengths = lengths
        self.longest = int(lengths.max()) if len(lengths) else 0
        self.even = bool((lengths == self.longest).all())

    def reserve(self, tokens: int) -> None:
        """Room for `tokens` a row."""
        held = self.keys.shape[2]
        if tokens > held:
            grown = -(-max(tokens, held + held // _GROWTH) // _STEP) * _STEP
            self.keys, self.values = (_lengthened(held, grown) for held in (self.keys, self.values))

    def select(self, rows: Tensor) -> LayerCache:
        """A copy that holds `rows`, in that order; a row may come more than once."""
        copy = LayerCache(len(rows), self.keys.shape[1], self.keys.shape[3], self.keys)
        copy.hold(self.lengths[rows])
        copy.keys = self.keys[:, :, : copy.longest].index_select(0, rows)
        copy.values = self.values[:, :, : copy.longest].index_select(0, rows)
        return copy


def _lengthened(stored: Tensor, length: int) -> Tensor:
    rows, heads, held, head_dim = stored.shape
    longer = stored.new_empty(rows, heads, length, head_dim)
    longer[:, :, :held] = stored
    longer[:, :, held:] = 0
    return longer


class KVCache:
    """What a model remembers of `rows` texts that it reads in pieces."""

    def __init__(self, rows: int):
        self.rows = rows
        self.read = [0] * rows  # tokens read so far, by row: the position of the next one
        self.layers: dict[nn.Module, LayerCache] = {}

    def layer(self, owner: nn.Module, like: Tensor) -> LayerCache:
        """The part that belongs to the attention layer `owner`, whose keys look `like` (N, K, D / H)."""
        if owner not in self.layers:
            self.layers[owner] = LayerCache(self.rows, like.shape[1], like.shape[2], like)
        return self.layers[owner]

    def select(self, rows: Sequence[int]) -> KVCache:
        """A cache of `rows`, in that order: drops the finished, or copies one that several continue."""
        copy = KVCache(len(rows))
        copy.read = [self.read[row] for row in rows]
        for owner, layer in self.layers.items():
            copy.layers[owner] = layer.select(torch.tensor(rows, dtype=torch.int64, device=layer.lengths.device))
        return copy

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Inside, an error takes back what was appended: in every layer, for some may not have been reached."""
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
        """Bytes of keys and values, room for growth included."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values that are there."""
        return sum(
            int(layer.lengths.sum()) * 2 * layer.keys.element_size() * layer.keys.shape[1] * layer.keys.shape[3]
            for layer in self.layers.values()
        )


@dataclass(frozen=True)
class Arrivals:
    """Whose the new tokens are: token n belongs to row rows[n], in order of rows and positions."""

    cache: KVCache
    rows: Tensor  # (N,) int64
    step: bool  # no row has more than one of them: a decoding step
    whole: bool  # a step in which every row has one
    masked: bool = False  # all rows are computed, and `staying` says whose key and value remain
    staying: Tensor | None = None  # (N,) bool

    def take(self, index: Tensor) -> Arrivals:
        return replace(self, rows=self.rows[index], whole=False)

    def stay(self, staying: Tensor) -> Arrivals:
        return replace(self, staying=staying)

    def attend(self, owner: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append key and value (N, K, D / H) and attend with query (N, H, D / H) -> (N, H, D / H)."""
        layer = self.cache.layer(owner, key)
        if self.step:
            return self._attend_step(layer, query, key, value)
        return self._attend_prompt(layer, query, key, value)

    def _attend_step(self, layer: LayerCache, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if layer.even and self.whole and self.staying is None:
            slot = layer.longest
            layer.reserve(slot + 1)
            layer.keys[:, :, slot], layer.values[:, :, slot] = key, value
            layer.longest = length = slot + 1
            mask = None
        else:
            lengths = layer.lengths
            slots = lengths[self.rows]
            length = int(slots.max()) + 1
            layer.reserve(length)
            layer.keys[self.rows, :, slots], layer.values[self.rows, :, slots] = key, value
            stay = torch.ones_like(slots) if self.staying is None else self.staying.long()
            layer.hold(lengths.index_add(0, self.rows, stay))
            mask = (torch.arange(length, device=slots.device) <= slots.unsqueeze(1)).view(-1, 1, 1, length)
        keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
        if not self.whole:
            keys, values = keys.index_select(0, self.rows), values.index_select(0, self.rows)
        return attention(query.unsqueeze(2), keys, values, mask).squeeze(2)

    def _attend_prompt(self, layer: LayerCache, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        counts = self.rows.bincount(minlength=self.cache.rows)
        before = layer.lengths
        offset = torch.arange(len(self.rows), device=counts.device) - (counts.cumsum(0) - counts)[self.rows]
        slots = before[self.rows] + offset
        layer.hold(before + counts)
        layer.reserve(layer.longest)
        layer.keys[self.rows, :, slots], layer.values[self.rows, :, slots] = key, value
        padded = query.new_zeros(self.cache.rows, int(counts.max()), *query.shape[1:])
        padded[self.rows, offset] = query
        mixed = _attend_ragged(padded, layer, before)
        return mixed[self.rows, offset]


def _attend_ragged(query: Tensor, layer: LayerCache, before: Tensor) -> Tensor:
    """query (B, T, H, D / H): token t of row b sees the first before[b] + t + 1 keys of its row."""
    width, length = query.shape[1], layer.longest
    query, keys, values = query.transpose(1, 2), layer.keys[:, :, :length], layer.values[:, :, :length]
    if not before.any():  # the usual causal mask, for padding stands at the end
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
