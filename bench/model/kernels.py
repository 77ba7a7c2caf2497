"""Elementwise parts of the decoder with as few passes over memory as eager torch allows.

Without torch.compile these are bound by memory traffic, which autograd's own formulas multiply: each product is a
pass over memory, and slicing a tensor in two makes the backward pass concatenate. Here a gradient is written once, in
place. The mathematics is the usual one, and is tested against it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotate(heads: Tensor, rotary: Tensor) -> Tensor:
    """Turn each pair (2i, 2i + 1) of `heads` (B, T, heads, head_dim) by its position's angle.

    rotary: (B or 1, T, 1, head_dim / 2, 2), cosine and sine. RoPE, Su et al. 2021, arXiv 2104.09864, eq. 34.
    """
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if _in_complex_numbers(heads):
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotary)).flatten(-2)
    first, second = pairs.unbind(-1)
    cosine, sine = rotary.to(heads.dtype).unbind(-1)
    return torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-1).flatten(-2)


def _in_complex_numbers(heads: Tensor) -> bool:
    return heads.dtype == torch.float32 and not torch.compiler.is_compiling()  # one pass instead of six


class _SplitRotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, rotary: Tensor, n_heads: int, n_kv_heads: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rotary)
        ctx.sizes = (n_heads, n_kv_heads, n_kv_heads)
        query, key, value = qkv.split(ctx.sizes, dim=2)
        turn = torch.view_as_complex(rotary)
        return _turned(query, turn), _turned(key, turn), value

    @staticmethod
    def backward(ctx, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor):
        (rotary,) = ctx.saved_tensors
        batch, length, _, head_dim = grad_query.shape
        grad = grad_query.new_empty(batch, length, sum(ctx.sizes), head_dim)
        query, key, value = grad.split(ctx.sizes, dim=2)
        back = torch.view_as_complex(rotary).conj()
        for part, given in ((query, grad_query), (key, grad_key)):
            if given.stride(-1) != 1:  # from attention by plain products
                given = given.contiguous()
            torch.mul(_in_pairs(given), back, out=_in_pairs(part))
        value.copy_(grad_value)
        return grad, None, None, None


def _turned(heads: Tensor, turn: Tensor) -> Tensor:
    """`heads` (B, T, H, head_dim) times `turn`, complex; laid out head by head, as attention reads them."""
    batch, length, n_heads, head_dim = heads.shape
    out = heads.new_empty(batch, n_heads, length, head_dim).transpose(1, 2)
    torch.mul(_in_pairs(heads), turn, out=_in_pairs(out))
    return out


def _in_pairs(heads: Tensor) -> Tensor:
    return torch.view_as_complex(heads.unflatten(-1, (-1, 2)))


def split_rotated(qkv: Tensor, rotary: Tensor, n_heads: int, n_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """qkv (B, T, H + 2 K, head_dim) -> queries (B, T, H, .) and keys (B, T, K, .), turned, and values (B, T, K, .)."""
    if torch.is_grad_enabled() and _in_complex_numbers(qkv):
        return _SplitRotated.apply(qkv, rotary, n_heads, n_kv_heads)
    query_key, value = qkv.split_with_sizes((n_heads + n_kv_heads, n_kv_heads), dim=2)
    query, key = rotate(query_key, rotary).split_with_sizes((n_heads, n_kv_heads), dim=2)
    return query, key, value


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(gate_up, activated)
        return activated * up

    @staticmethod
    def backward(ctx, grad: Tensor):
        gate_up, activated = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        torch.mul(grad, activated, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return out


def swiglu(gate_up: Tensor) -> Tensor:
    """(..., 2 F) -> (..., F): silu of the first half times the second (Shazeer 2020, arXiv 2002.05202)."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _SwiGLU.apply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """x (..., D) -> 1 / sqrt(mean of squares + eps) (..., 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = inverse_rms(x, eps)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx, grad: Tensor):
        normed, inverse, weight = ctx.saved_tensors
        product = (grad * normed).flatten(0, -2)
        along = (product @ weight).div_(-weight.numel()).view_as(inverse)
        grad_x = (grad * weight).addcmul_(normed, along).mul_(inverse)
        return grad_x, product.sum(dim=0), None


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), with fewer passes where torch has no kernel."""

    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        if x.is_cuda or x.dtype != self.weight.dtype:
            return super().forward(x)
        if torch.is_grad_enabled():
            return _RMSNorm.apply(x, self.weight, self.eps)
        return (x * inverse_rms(x, self.eps)).mul_(self.weight)
