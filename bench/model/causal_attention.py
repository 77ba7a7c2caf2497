"""Causal attention over whole rows: SDPA, or blocks of queries for short rows in training on a CPU.

torch's CPU kernel computes one head of one row at a time, by small matrix products. For rows of a few hundred tokens
products over all heads and rows at once are faster, by a third at 256 tokens, although they keep the probabilities
for the backward pass. A block of queries uses the keys up to its own end, so most of the upper triangle is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.model.cache import attention

_QUERIES = 64  # in a block
_LONGEST = 512  # tokens of a row: memory grows with their square
_SCORES = 1 << 20  # elements at once: 4 MB in float32, which fit into the caches


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """query (B, T, H, D / H), key and value (B, T, K, D / H), K dividing H -> (B, T, H, D / H)."""
    if _in_blocks(query, key):
        return _InBlocks.apply(query, key, value)
    heads = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return attention(*heads, is_causal=True).transpose(1, 2)


def _in_blocks(query: Tensor, key: Tensor) -> bool:
    on_cpu = query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)
    training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    training = training and torch.backends.cuda.flash_sdp_enabled()  # not under `sdpa_kernel`, which chose another
    return on_cpu and training and query.shape[1] <= _LONGEST and query.shape[2] == key.shape[2]


def _blocks(shape: torch.Size) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks of (B, T, H, .): the heads of some rows, in their order; the queries; the keys that these may see."""
    batch, length, heads, _ = shape
    rows = max(1, _SCORES // (heads * _QUERIES * length))
    for first in range(0, batch, rows):
        own = slice(heads * first, heads * min(batch, first + rows))
        for start in range(0, length, _QUERIES):
            end = min(length, start + _QUERIES)
            yield own, slice(start, end), slice(0, end)


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H, .) -> (B * H, T, .), head by head."""
    return x.transpose(1, 2).flatten(0, 1)


def _by_row(x: Tensor, shape: torch.Size) -> Tensor:
    """(B * H, T, .) -> `shape`, (B, T, H, .): a view."""
    return x.unflatten(0, (shape[0], shape[2])).transpose(1, 2)


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.shape, ctx.scale = query.shape, query.shape[-1] ** -0.5
        query, key, value = _by_head(query), _by_head(key), _by_head(value)
        length = query.shape[1]
        later = torch.full((length, length), -torch.inf, dtype=query.dtype).triu(1)
        out, probabilities = torch.empty_like(query), []
        for own, block, seen in _blocks(ctx.shape):
            scores = torch.baddbmm(later[block, seen], query[own, block], key[own, seen].mT, alpha=ctx.scale)
            probabilities.append(scores.softmax(dim=-1))
            out[own, block] = torch.bmm(probabilities[-1], value[own, seen])
        ctx.save_for_backward(query, key, value, *probabilities)
        return _by_row(out, ctx.shape)

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, *probabilities = ctx.saved_tensors
        grad, scale = _by_head(grad), ctx.scale
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (own, block, seen), p in zip(_blocks(ctx.shape), probabilities, strict=True):
            grad_value[own, seen] += torch.bmm(p.mT, grad[own, block])
            grad_p = torch.bmm(grad[own, block], value[own, seen].mT)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(scale)
            grad_query[own, block] = torch.bmm(grad_scores, key[own, seen])
            grad_key[own, seen] += torch.bmm(grad_scores.mT, query[own, block])
        return tuple(_by_row(each, ctx.shape) for each in (grad_query, grad_key, grad_value))
