"""The keys and values of one attention layer, for rows that hold different numbers of them.

`PaddedCache` gives every row the room of the longest one; reading is a view. `PackedCache` stores the tokens of all
rows in order of arrival, with a table of each row's places; skipped tokens take no room, and reading gathers. Rows of
an unrouted layer have nearly equal lengths. Behind a router lengths vary, and a step reads few rows. On two CPU cores
packing reduced the cache of a MoD model from 0.60-0.71 to 0.56 of dense's (2 to 64 rows, 256 tokens), at 0 to 4 % of
its speed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

_GROWTH = 8  # storage grows by an eighth, in steps of _STEP tokens, so little is allocated without use
_STEP = 8

Held = tuple[Tensor, int, bool, int]


class LayerCache(ABC):
    """Keys and values of one attention layer; row b holds `lengths[b]` of them, in the order of their positions."""

    def __init__(self, rows: int, like: Tensor):
        """For keys that look `like` (N, K, D / H)."""
        self.like = like.new_empty(0, *like.shape[1:])
        self.longest = 0
        self.even = True  # every row holds `longest`: no mask is needed, and `_lengths` is not updated
        self._lengths = torch.zeros(rows, dtype=torch.int64, device=like.device)
        self.used = 0  # tokens of all rows in a packed storage

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: keys of each row."""
        return torch.full_like(self._lengths, self.longest) if self.even else self._lengths

    @property
    def held(self) -> Held:
        """The extent of what is held; later writes come after it."""
        return self._lengths, self.longest, self.even, self.used

    @held.setter
    def held(self, held: Held) -> None:
        self._lengths, self.longest, self.even, self.used = held

    def hold(self, lengths: Tensor) -> None:
        """Rows now have `lengths` (B,)."""
        self._lengths = lengths
        self.longest = int(lengths.max()) if len(lengths) else 0
        self.even = bool((lengths == self.longest).all())

    @abstractmethod
    def write(self, rows: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Token n, key and value (N, K, D / H), becomes number slots[n] of row rows[n]; does not call `hold`."""

    def append(self, key: Tensor, value: Tensor) -> None:
        """One token for each row, (B, K, D / H), where rows are even; they stay even."""
        self.write(torch.arange(len(key), device=key.device), self.lengths, key, value)
        self.longest += 1

    @abstractmethod
    def read(self, length: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first `length` keys and values of `rows`, of all where None: (B, K, L, D / H).

        Values past a row's own length are finite but meaningless.
        """

    def select(self, rows: Tensor, kind: type[LayerCache]) -> LayerCache:
        """A copy that holds `rows`, in that order, as a `kind`; a row may occur more than once."""
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 0
        copy = kind(len(rows), self.like)
        own, slots = (torch.arange(longest, device=rows.device) < lengths.unsqueeze(1)).nonzero(as_tuple=True)
        if len(own):
            keys, values = self.read(longest, rows)
            copy.write(own, slots, keys[own, :, slots], values[own, :, slots])
        copy.hold(lengths)
        return copy

    @property
    @abstractmethod
    def allocated_bytes(self) -> int:
        """Bytes of keys, values and their index, room for growth included."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values held."""
        return int(self.lengths.sum()) * 2 * self.like.shape[1:].numel() * self.like.element_size()


class PaddedCache(LayerCache):
    """(B, K, L, D / H), L at least the longest row."""

    def __init__(self, rows: int, like: Tensor):
        super().__init__(rows, like)
        self.keys, self.values = (like.new_zeros(rows, like.shape[1], 0, like.shape[2]) for _ in range(2))

    def write(self, rows: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
        self._reserve(int(slots.max()) + 1)
        self.keys[rows, :, slots], self.values[rows, :, slots] = key, value

    def append(self, key: Tensor, value: Tensor) -> None:
        slot = self.longest
        self._reserve(slot + 1)
        self.keys[:, :, slot], self.values[:, :, slot] = key, value
        self.longest = slot + 1

    def read(self, length: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[:, :, :length], self.values[:, :, :length]
        return (keys, values) if rows is None else (keys.index_select(0, rows), values.index_select(0, rows))

    def _reserve(self, tokens: int) -> None:
        held = self.keys.shape[2]
        if tokens > held:
            grown = _grown(held, tokens)
            self.keys, self.values = (_lengthened(each, 2, grown) for each in (self.keys, self.values))

    @property
    def allocated_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class PackedCache(LayerCache):
    """(N, K, D / H), the tokens of all rows in order of arrival, and the (B, L) places of each row's."""

    def __init__(self, rows: int, like: Tensor):
        super().__init__(rows, like)
        self.keys, self.values = like.new_zeros(0, *like.shape[1:]), like.new_zeros(0, *like.shape[1:])
        self._places = torch.zeros(rows, 0, dtype=torch.int64, device=like.device)

    def write(self, rows: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
        start = self._store(key, value)
        length = int(slots.max()) + 1
        if length > self._places.shape[1]:
            self._places = _lengthened(self._places, 1, _grown(self._places.shape[1], length))
        self._places[rows, slots] = torch.arange(start, self.used, device=rows.device)

    def _store(self, key: Tensor, value: Tensor) -> int:
        """Append tokens; returns the place of the first."""
        start, end = self.used, self.used + len(key)
        held = len(self.keys)
        if end > held:
            self.keys, self.values = (_lengthened(each, 0, _grown(held, end)) for each in (self.keys, self.values))
        self.keys[start:end], self.values[start:end] = key, value
        self.used = end
        return start

    def read(self, length: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        places = self._places[:, :length] if rows is None else self._places[rows, :length]
        keys, values = (
            each.index_select(0, places.flatten()).unflatten(0, places.shape) for each in (self.keys, self.values)
        )
        return keys.transpose(1, 2), values.transpose(1, 2)

    @property
    def allocated_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self._places.nbytes


def _grown(held: int, wanted: int) -> int:
    """New room for at least `wanted` tokens, from room for `held`."""
    return -(-max(wanted, held + held // _GROWTH) // _STEP) * _STEP


def _lengthened(stored: Tensor, dim: int, length: int) -> Tensor:
    """With `length` places along `dim`, the new ones zero."""
    shape, held = list(stored.shape), stored.shape[dim]
    shape[dim] = length
    longer = stored.new_empty(shape)
    longer.narrow(dim, 0, held).copy_(stored)
    longer.narrow(dim, held, length - held).zero_()
    return longer
