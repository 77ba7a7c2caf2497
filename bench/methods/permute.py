"""Moving tokens to their experts and back, by gathers in both directions of autograd.

A choice is a (token, expert) pair; a token makes `copies` of them, and `order` sorts them by expert.
The usual index_select has a backward that adds into rows one by one: slow, and on a GPU in an order
that varies from run to run. Here the backward of a gather is the gather by the inverse permutation,
and the sum over a token's choices is an embedding bag: one pass over memory, no atomics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _inverse(order: Tensor) -> Tensor:
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))


def _spread(flat: Tensor, order: Tensor, visited: int, copies: int) -> Tensor:
    return flat.index_select(0, order[:visited] // copies)


def _bag(rows: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """Sum over each token's choices: rows (M, D) sorted by `order`, weights (N, copies) -> (N, D)."""
    where = _inverse(order).view_as(weights)
    if rows.shape[0] < order.numel():  # choices past the last row have no expert
        weights = weights * (where < rows.shape[0])
        where = where.clamp(max=rows.shape[0] - 1)
    return F.embedding_bag(where, rows, per_sample_weights=weights.to(rows.dtype), mode="sum")


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, flat: Tensor, order: Tensor, visited: int, copies: int) -> Tensor:
        ctx.save_for_backward(order)
        ctx.copies = copies
        return _spread(flat, order, visited, copies)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (order,) = ctx.saved_tensors
        return _bag(grad, order, grad.new_ones(order.numel() // ctx.copies, ctx.copies)), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(rows, order, gates)
        return _bag(rows, order, gates)

    @staticmethod
    def backward(ctx, grad: Tensor):
        rows, order, gates = ctx.saved_tensors
        grad_rows = _spread(grad, order, rows.shape[0], gates.shape[1])
        visited = order[: rows.shape[0]]
        grad_gates = torch.zeros_like(gates).view(-1)
        grad_gates[visited] = torch.linalg.vecdot(grad_rows, rows).to(gates.dtype)
        grad_rows = grad_rows.mul_(gates.view(-1)[visited].unsqueeze(-1))
        return grad_rows, None, grad_gates.view_as(gates)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx, flat: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(index)
        return flat.view_as(flat), flat.index_select(0, index)

    @staticmethod
    def backward(ctx, grad_stays: Tensor, grad_taken: Tensor):
        (index,) = ctx.saved_tensors
        return grad_stays.index_add(0, index, grad_taken), None


def take(flat: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """All rows (N, D) as they are, and a copy of those at `index` (S,), without repetition: (S, D).

    Both come from one result, so their gradients are added in a single pass over memory.
    """
    if not torch.is_grad_enabled():
        return flat, flat.index_select(0, index)
    return _Take.apply(flat, index)


def dispatch(flat: Tensor, order: Tensor, visited: int, copies: int) -> Tensor:
    """One row a visit, sorted by expert.

    flat (N, D); order (N * copies,) sorts the choices (choice i belongs to token i // copies);
    the first `visited` of them have an expert -> (visited, D).
    """
    if not torch.is_grad_enabled():
        return _spread(flat, order, visited, copies)
    return _Dispatch.apply(flat, order, visited, copies)


def combine(rows: Tensor, order: Tensor, gates: Tensor) -> Tensor:
    """The way back: sum of each token's expert outputs, weighted by its gates.

    rows (visited, D) sorted by expert, gates (N, copies) -> (N, D); a choice without an expert adds 0.
    """
    if not torch.is_grad_enabled():
        return _bag(rows, order, gates)
    return _Combine.apply(rows, order, gates)
