"""FLOPs as torch's dispatcher sees them: model FLOPs under the math attention kernel, and executed FLOPs as run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# Fused attention: the products of its forward pass, and those of its backward pass, which computes the scores again.
_FUSED_PRODUCTS = {"": 2, "_backward": 5}
_FUSED_KERNELS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")


@contextmanager
def model_flops() -> Iterator[FlopCounterMode]:
    """Counts the model FLOPs of what runs inside: all matrix products, attention over all pairs."""
    with sdpa_kernel(SDPBackend.MATH), _counter({}) as counter:
        yield counter


@contextmanager
def executed_flops() -> Iterator[FlopCounterMode]:
    """Counts the FLOPs that eager code executes inside, with the kernels that it chooses.

    A fused kernel skips what is past the causal diagonal; it is taken to compute exactly the pairs up to it. Every
    fused attention of whole rows in this decoder is causal.
    """
    formulas = {
        getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{suffix}"): _causal(products)
        for suffix, products in _FUSED_PRODUCTS.items()
        for kernel in _FUSED_KERNELS
    }
    with _counter(formulas) as counter:
        yield counter


def _counter(formulas: dict[Any, Callable[..., int]]) -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: _grouped} | formulas)


def _grouped(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """a (M, K), b (E, K, N): each row times one of E matrices. In a weight's gradient a (K, M), b (M, N): E products
    of some of the M columns and rows each.
    """
    return 2 * a[0] * a[1] * b[-1]


def _causal(products: int) -> Callable[..., int]:
    def flops(first: Any, *args: Any, **kwargs: Any) -> int:
        """first: the shape (B, H, T, D / H) of the queries, or of the output's gradient."""
        batch, heads, length, width = first
        return products * batch * heads * length * (length + 1) * width

    return flops
