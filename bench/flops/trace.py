"""Two counts independent of the analytic one, by fvcore's traced graph and by torch's dispatcher, and their check."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import UserError
from bench.model import Routing, TokenContext, Transformer

COUNTS_AGREE_TO = 0.001

# fvcore's names for what it counts as matrix products; it also counts norms, which are not counted here.
_PRODUCTS = {"linear", "matmul", "bmm", "addmm", "mm", "einsum", "conv", "scaled_dot_product_attention", "_grouped_mm"}

# Operators without matrix products. Any other one without a handler in fvcore fails the count, so that no operator
# is left out silently.
_NO_PRODUCT = """
    add add_ sub mul mul_ div div_ neg rsub pow sqrt rsqrt exp log sigmoid silu silu_ softmax log_softmax
    logsumexp abs sign clamp clamp_min clamp_max maximum minimum mean sum std var max min amax amin cumsum topk
    sort argsort embedding_bag unflatten flatten stack unbind nonzero_numpy complex view_as_complex view_as_real
    linalg_vector_norm gather scatter scatter_ index_select index_add index_copy index index_put_ take_along_dim
    embedding repeat repeat_interleave expand_as bincount nonzero masked_fill masked_fill_ where lerp_ copy_ gt
    lt ge le eq ne bitwise_and bitwise_not logical_and logical_not __and__ floor_divide remainder round arange
    zeros_like ones_like empty_like full_like zeros ones full empty fill_ randn_like detach clone rms_norm
    _fused_rms_norm addcmul square square_ rsqrt_ alias type_as numel floor ceil view_as expand slice narrow unsqueeze
    squeeze select tanh gelu relu relu_ leaky_relu elu softplus erf sin cos exp_ exp2 log2 log1p expm1 trunc fmod frac
    bitwise_or bitwise_xor logical_or logical_xor logical_and_ masked_select isfinite isnan isinf cummax cummin
    argmax argmin roll flip tril triu one_hot searchsorted bucketize norm rand_like bernoulli scatter_add scatter_add_ new_zeros
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Traced:
    """Forward FLOPs by three counters, of a model or of a part of it; the analytic one with the batch's own routing."""

    analytic: float
    fvcore: float
    torch: float

    @property
    def disagreement(self) -> float:
        """Largest relative difference from the analytic count."""
        if self.analytic == 0:
            return math.inf if self.fvcore or self.torch else 0.0
        return max(abs(self.fvcore / self.analytic - 1), abs(self.torch / self.analytic - 1))

    def __str__(self) -> str:
        return f"counted {self.analytic:.6g}, fvcore {self.fvcore:.6g}, torch {self.torch:.6g}"


def check_counts(name: str, model: Transformer, tokens: Tensor) -> Traced:
    """The three counts of one forward pass of `tokens` (B, T), routed as in training.

    Raises UserError if they disagree by more than COUNTS_AGREE_TO, with the parts that differ and the likely
    cause, and if fvcore meets an unclassified operator. `name` is the run's name in the message.
    """
    try:
        counted = trace(model, tokens)
    except ValueError as error:
        raise UserError(f"the FLOPs of {name} cannot be counted: {error}. Nothing was trained.") from error
    if counted.disagreement <= COUNTS_AGREE_TO:
        return counted
    parts = trace_parts(model, tokens)
    differ = {part: found for part, found in parts.items() if found.disagreement > COUNTS_AGREE_TO}
    lines = "; ".join(f"{part}: {found}" for part, found in differ.items())
    by_part = f"By part, {lines}; " if differ else "No part differs by as much; "
    rest = "every other part agrees" if len(differ) < len(parts) else "no part agrees"
    raise UserError(
        f"the forward FLOP counts of {name} disagree by {counted.disagreement:.2%} ({COUNTS_AGREE_TO:.1%} is allowed), "
        f"so it was not trained. In all, {counted}. {by_part}{rest}. "
        f"Likely cause: {_likely_cause(model, tokens, counted)}."
    )


def _likely_cause(model: Transformer, tokens: Tensor, counted: Traced) -> str:
    if abs(counted.fvcore / counted.torch - 1) > COUNTS_AGREE_TO:
        return "an operator that only one of fvcore and torch can count; use plain matrix products in evaluation mode"
    if counted.torch < counted.analytic:
        return "flops() counts products that are not computed, or executed_flops leaves out what was saved"
    with torch.no_grad():
        _, routings = model(tokens)
    counts = [routing.selected.sum(dim=-1) for routing in routings if routing.selected is not None]
    if any(int(each.min()) != int(each.max()) for each in counts):
        return (
            "rows choose different numbers of tokens and are padded to the widest, so more is executed than counted; "
            "choose equally many in each row, or count the padding in executed_flops as RoutedLayer does"
        )
    return "flops() leaves out a product, or tokens that it does not count are computed and then masked"


def trace(model: Transformer, tokens: Tensor) -> Traced:
    """Count one forward pass of `tokens` (B, T), routed as in training, in three ways.

    Raises ValueError if fvcore meets an unclassified operator.
    """
    with _evaluating(model):
        planned = tokens.shape[0] * sum(model.flops(tokens.shape[1]).values())
        analytic = planned + _executed(model(tokens)[1])
        return Traced(analytic, count_fvcore(model, tokens), count_torch(model, tokens))


def trace_parts(model: Transformer, tokens: Tensor) -> dict[str, Traced]:
    """The three counts of each kind of layer and of the head; layers of one class with equal counts are one part."""
    with _evaluating(model):
        analytic = _analytic_parts(model, tokens)
        by_fvcore, by_torch = _fvcore(model, tokens).by_module_and_operator(), _torch(model, tokens).get_flop_counts()
    counts: dict[str, Traced] = {}
    for part, planned in analytic.items():
        macs = sum(n for operator, n in by_fvcore[f"model.{part}"].items() if operator in _PRODUCTS)
        flops = sum(by_torch.get(f"{type(model).__name__}.{part}", {}).values())
        counts[part] = Traced(planned, 2.0 * macs, float(flops))
    kinds: dict[tuple[str, Traced], list[str]] = {}
    for part, found in counts.items():
        kinds.setdefault((type(model.get_submodule(part)).__name__, found), []).append(part.removeprefix("layers."))
    return {
        "head" if numbers == ["head"] else f"{kind} (layers {', '.join(numbers)})": found
        for (kind, found), numbers in kinds.items()
    }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _executed(routings: Sequence[Routing]) -> float:
    return sum(float(r.executed_flops) for r in routings if r.executed_flops is not None)


def _analytic_parts(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Counted FLOPs of each layer and of the head: the plan, and what this batch's routing adds to it."""
    rows, length = tokens.shape
    counts: dict[str, float] = {}
    reported = [0]

    def add(part: str, layer: Any, context: TokenContext) -> None:
        new = context.routings[reported[-1] :]
        reported.append(len(context.routings))
        counts[part] = rows * sum(layer.flops(length).values()) + _executed(new)

    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _, part=f"layers.{number}": add(part, layer, inputs[1]))
        for number, layer in enumerate(model.layers)
    ]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return counts | {"head": 2.0 * model.head.weight.numel() * rows * length}


class _Traceable(nn.Module):
    """The model as a function of tokens only, as a tracer needs it.

    It also returns the routers' decisions, because the tracer drops what leads to no output.
    """

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> list[Tensor]:
        logits, routings = self.model(tokens)
        return [logits, *(r.causal_choice for r in routings if r.causal_choice is not None)]


def count_fvcore(model: Transformer, tokens: Tensor) -> float:
    """Forward FLOPs by fvcore: its multiply-accumulates in matrix products, doubled."""
    by_operator = _fvcore(model, tokens).by_operator()
    return 2.0 * sum(macs for name, macs in by_operator.items() if name in _PRODUCTS)


def _fvcore(model: Transformer, tokens: Tensor) -> FlopCountAnalysis:
    """The finished analysis. Raises ValueError for an unclassified operator."""
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
        analysis.by_operator()  # traces the model; only then are the others known
        unsupported = analysis.unsupported_ops()
    declared = {name for module in model.modules() for name in getattr(module, "product_free", ())}
    unknown = {name.split("::")[-1] for name in unsupported} - set(_NO_PRODUCT) - declared
    if unknown:
        raise ValueError(
            f"fvcore has no count for {', '.join(sorted(unknown))}; an operator without matrix products is named in "
            "product_free of the layer that uses it"
        )
    return analysis


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
    return float(_torch(model, tokens).get_total_flops())


def _torch(model: nn.Module, tokens: Tensor) -> FlopCounterMode:
    mapping: dict[Any, Callable[..., int]] = {torch.ops.aten._grouped_mm: _grouped_flops}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(tokens)
    return counter


def _grouped_flops(a_shape: Any, b_shape: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * a_shape[0] * a_shape[1] * b_shape[-1]
