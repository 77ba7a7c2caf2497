"""Two counts that know nothing of the analytic one: fvcore's traced graph and torch's dispatcher."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.model import Transformer

COUNTS_AGREE_TO = 0.001

# fvcore's names for what it counts as matrix products; it also counts norms, which are left out here.
_PRODUCTS = {"linear", "matmul", "bmm", "addmm", "mm", "einsum", "conv", "scaled_dot_product_attention", "_grouped_mm"}

# Operators without a matrix product in them. Anything fvcore has no handle for and that is not here fails
# the count, so that a new operator can never be left out silently.
_NO_PRODUCT = """
    add add_ sub mul mul_ div div_ neg rsub pow sqrt rsqrt exp log sigmoid silu silu_ softmax log_softmax
    logsumexp abs sign clamp clamp_min clamp_max maximum minimum mean sum std var max min amax amin cumsum topk
    sort argsort embedding_bag unflatten flatten stack unbind nonzero_numpy complex view_as_complex view_as_real
    linalg_vector_norm gather scatter scatter_ index_select index_add index_copy index index_put_ take_along_dim
    embedding repeat repeat_interleave expand_as bincount nonzero masked_fill masked_fill_ where lerp_ copy_ gt
    lt ge le eq ne bitwise_and bitwise_not logical_and logical_not __and__ floor_divide remainder round arange
    zeros_like ones_like empty_like full_like zeros ones full empty fill_ randn_like detach clone rms_norm
    _fused_rms_norm addcmul square square_ rsqrt_ alias type_as numel floor ceil view_as expand slice narrow unsqueeze
    squeeze select
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Traced:
    """Forward FLOPs of one batch, by three counters; the analytic one with the batch's own routing."""

    analytic: float
    fvcore: float
    torch: float

    @property
    def disagreement(self) -> float:
        """Largest relative difference from the analytic count."""
        return max(abs(self.fvcore / self.analytic - 1), abs(self.torch / self.analytic - 1))


class _Traceable(nn.Module):
    """The model as a function of tokens alone, which is all a tracer can follow.

    It returns what the routers decided as well: the tracer drops whatever leads to no output.
    """

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> list[Tensor]:
        logits, routings = self.model(tokens)
        return [logits, *(r.causal_choice for r in routings if r.causal_choice is not None)]


def trace(model: Transformer, tokens: Tensor) -> Traced:
    """Count one forward pass of `tokens` (B, T), routed as in training, in three ways.

    Raises ValueError where fvcore meets an operator that nobody has classified.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return Traced(_analytic(model, tokens), count_fvcore(model, tokens), count_torch(model, tokens))
    finally:
        model.train(was_training)


def _analytic(model: Transformer, tokens: Tensor) -> float:
    planned = tokens.shape[0] * sum(model.flops(tokens.shape[1]).values())
    _, routings = model(tokens)
    return planned + sum(float(r.executed_flops) for r in routings if r.executed_flops is not None)


def count_fvcore(model: Transformer, tokens: Tensor) -> float:
    """Forward FLOPs by fvcore: its multiply-accumulates in matrix products, doubled."""
    analysis = FlopCountAnalysis(_Traceable(model), tokens)
    analysis.set_op_handle(
        **{
            "aten::scaled_dot_product_attention": _attention_macs,
            "aten::_grouped_mm": _grouped_macs,
        }
    )
    analysis.tracer_warnings("none").unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_operator = analysis.by_operator()
    unknown = {name.split("::")[-1] for name in analysis.unsupported_ops()} - set(_NO_PRODUCT)
    if unknown:
        raise ValueError(f"fvcore has no count for {sorted(unknown)}: add a handle, or list it as product-free")
    return 2.0 * sum(macs for name, macs in by_operator.items() if name in _PRODUCTS)


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """q (B, H, S, E), k (B, K, L, E), v (B, K, L, F): B H S L (E + F) multiply-adds."""
    batch, heads, queries, width = _shape(inputs[0])
    keys, value_width = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    return batch * heads * queries * keys * (width + value_width)


def _grouped_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """a (M, K), b (E, K, N), each row of a times one of the E matrices: M K N multiply-adds."""
    rows, inner = _shape(inputs[0])
    return rows * inner * _shape(inputs[1])[-1]


def count_torch(model: nn.Module, tokens: Tensor) -> float:
    """Forward FLOPs by torch's dispatcher, attention decomposed into its products (math backend)."""
    mapping: dict[Any, Callable[..., int]] = {torch.ops.aten._grouped_mm: _grouped_flops}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(tokens)
    return float(counter.get_total_flops())


def _grouped_flops(a_shape: Any, b_shape: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * a_shape[0] * a_shape[1] * b_shape[-1]
