"""The check of the analytic counts: forward by fvcore's traced graph, forward and backward by torch's dispatcher."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import matmul_flop_jit
from torch import Tensor, nn

from bench.errors import UserError
from bench.flops.dispatch import model_flops
from bench.model import TokenContext, Transformer
from bench.model.transformer import next_token_loss

COUNTS_AGREE_TO = 0.001
PARTS_AGREE_TO = 1e-5  # of a layer: counts are exact, and a forgotten router of a wide model is less than 0.1 % of it
_ROWS = 2  # enough for rows that differ; the math kernel keeps all pairs of a row for the backward pass

# fvcore's names for what it counts as matrix products; it also counts norms, which are not counted here.
_PRODUCTS = {"linear", "matmul", "bmm", "addmm", "mm", "einsum", "conv", "scaled_dot_product_attention", "_grouped_mm"}

# Operators without matrix products. Any other one without a handler in fvcore fails the count, so that no operator
# is left out silently.
_NO_PRODUCT = """
    add add_ sub mul mul_ div div_ neg rsub pow sqrt rsqrt exp log sigmoid silu silu_ softmax log_softmax logsumexp
    abs sign clamp clamp_min clamp_max maximum minimum mean sum std var max min amax amin cumsum topk sort argsort
    embedding_bag unflatten flatten stack unbind nonzero_numpy complex view_as_complex view_as_real
    linalg_vector_norm gather scatter scatter_ scatter_add scatter_add_ index_select index_add index_copy index
    index_put_ take_along_dim embedding repeat repeat_interleave expand_as bincount nonzero masked_fill masked_fill_
    where lerp_ copy_ gt lt ge le eq ne bitwise_and bitwise_not logical_and logical_not __and__ floor_divide
    remainder round arange zeros_like ones_like empty_like full_like zeros ones full empty fill_ randn_like detach
    clone rms_norm _fused_rms_norm addcmul square square_ rsqrt_ alias type_as numel floor ceil view_as expand slice
    narrow unsqueeze squeeze select tanh gelu relu relu_ leaky_relu elu softplus erf sin cos exp_ exp2 log2 log1p
    expm1 trunc fmod frac bitwise_or bitwise_xor logical_or logical_xor logical_and_ masked_select isfinite isnan
    isinf cummax cummin argmax argmin roll flip tril triu one_hot searchsorted bucketize norm rand_like bernoulli
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Traced:
    """FLOPs of one pass of a batch, of a model or of a part of it.

    analytic, fvcore, torch: of the forward pass, by three counters; train_analytic, train_torch: forward and backward,
    by two. The analytic ones are the plan and what the batch's own routing adds to it.
    """

    analytic: float
    fvcore: float
    torch: float
    train_analytic: float
    train_torch: float

    @property
    def forward_disagreement(self) -> float:
        """Largest relative difference from the analytic count of the forward pass."""
        return max(_off(self.fvcore, self.analytic), _off(self.torch, self.analytic))

    @property
    def disagreement(self) -> float:
        """Largest relative difference from an analytic count."""
        return max(self.forward_disagreement, _off(self.train_torch, self.train_analytic))

    def __str__(self) -> str:
        """Of the forward pass, unless only the backward pass differs."""
        if self.forward_disagreement <= PARTS_AGREE_TO < self.disagreement:
            return f"with backward counted {self.train_analytic:.6g}, torch {self.train_torch:.6g}"
        return f"counted {self.analytic:.6g}, fvcore {self.fvcore:.6g}, torch {self.torch:.6g}"


def _off(counted: float, analytic: float) -> float:
    if analytic == 0:
        return math.inf if counted else 0.0
    return abs(counted / analytic - 1)


def check_counts(name: str, model: Transformer, tokens: Tensor) -> Traced:
    """The counts of one pass of the first rows of `tokens` (B, T), routed as in training.

    Raises UserError if they disagree by more than COUNTS_AGREE_TO in all, or by more than PARTS_AGREE_TO in a part,
    with the parts that differ and the likely cause; and if fvcore cannot count an operator. `name` is the run's name
    in the message.
    """
    tokens = tokens[:_ROWS]
    try:
        counted, parts = trace(model, tokens)
    except ValueError as error:
        raise UserError(f"the FLOPs of {name} cannot be counted: {error}. Nothing was trained.") from error
    differ = {part: found for part, found in parts.items() if found.disagreement > PARTS_AGREE_TO}
    if counted.disagreement <= COUNTS_AGREE_TO and not differ:
        return counted
    lines = "; ".join(f"{part}: {found}" for part, found in differ.items())
    by_part = f"By part, {lines}; " if differ else "No part differs; "
    rest = "every other part agrees" if len(differ) < len(parts) else "no part agrees"
    largest = max(differ.values(), key=lambda found: found.disagreement, default=counted)
    raise UserError(
        f"the FLOP counts of {name} disagree by {counted.disagreement:.2%} ({COUNTS_AGREE_TO:.1%} is allowed, "
        f"{PARTS_AGREE_TO:.3%} in a part), so it was not trained. In all, {counted}. {by_part}{rest}. "
        f"Likely cause: {_likely_cause(model, tokens, largest)}."
    )


def _likely_cause(model: Transformer, tokens: Tensor, counted: Traced) -> str:
    if _off(counted.fvcore, counted.torch) > PARTS_AGREE_TO:
        return "an operator that only one of fvcore and torch can count; use plain matrix products in evaluation mode"
    if counted.forward_disagreement <= PARTS_AGREE_TO:
        if counted.train_torch < counted.train_analytic:
            return (
                "backward_flops() or router_backward_flops() counts a gradient that is not computed: the input of a "
                "product is detached, or its result only chooses tokens"
            )
        return "backward_flops() leaves out a product, or training computes what evaluation does not"
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
    return (
        "flops() leaves out a product, or router_flops() those of choose() and gate(); or tokens that are not counted "
        "are computed and then masked"
    )


def trace(model: Transformer, tokens: Tensor) -> tuple[Traced, dict[str, Traced]]:
    """Count one pass of `tokens` (B, T), routed as in training, in all and by part: each kind of layer, and the head.

    The forward pass is counted in evaluation mode, and forward and backward together in training mode. Layers of one
    class with equal counts are one part. Raises ValueError if fvcore cannot count an operator.
    """
    with model.unchanged():
        model.eval()
        with torch.no_grad():
            forward = _stated(model, tokens, lambda: model(tokens))
            by_fvcore = _fvcore(model, tokens)
            with model_flops() as by_torch:
                model(tokens)
        model.train()
        with model_flops() as both:
            trained = _stated(model, tokens, lambda: _train_pass(model, tokens))
    macs, flops, train_flops = by_fvcore.by_module_and_operator(), by_torch.get_flop_counts(), both.get_flop_counts()
    name = type(model).__name__
    parts = {
        part: Traced(
            forward[part][0],
            _products(macs[f"model.{part}"]),
            float(sum(flops.get(f"{name}.{part}", {}).values())),
            sum(trained[part]),
            float(sum(train_flops.get(f"{name}.{part}", {}).values())),
        )
        for part in forward
    }
    whole = Traced(
        sum(own for own, _ in forward.values()),
        _products(by_fvcore.by_operator()),
        float(by_torch.get_total_flops()),
        sum(map(sum, trained.values())),
        float(both.get_total_flops()),
    )
    return whole, _kinds(model, parts)


def _kinds(model: Transformer, parts: dict[str, Traced]) -> dict[str, Traced]:
    """One part for layers of one class with equal counts."""
    kinds: dict[tuple[str, Traced], list[str]] = {}
    for part, found in parts.items():
        kinds.setdefault((type(model.get_submodule(part)).__name__, found), []).append(part.removeprefix("layers."))
    return {
        "head" if numbers == ["head"] else f"{kind} (layers {', '.join(numbers)})": found
        for (kind, found), numbers in kinds.items()
    }


def _train_pass(model: Transformer, tokens: Tensor) -> None:
    """Forward and backward of every loss that training has; the targets do not matter."""
    logits, routings = model(tokens)
    loss = next_token_loss(logits, tokens)
    (loss + sum(value for routing in routings for value in routing.losses.values())).backward()


def _stated(model: Transformer, tokens: Tensor, run: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Forward and backward FLOPs that each layer and the head state of the pass that `run` makes: the plan, and what
    the routing of this batch adds to it.
    """
    rows, length = tokens.shape
    counts: dict[str, tuple[float, float]] = {}
    reported = [0]

    def add(part: str, layer: Any, context: TokenContext) -> None:
        new = [routing.beyond_plan() for routing in context.routings[reported[-1] :]]
        reported.append(len(context.routings))
        planned = rows * sum(layer.flops(length).values()), rows * sum(layer.backward_flops(length).values())
        counts[part] = planned[0] + sum(own for own, _ in new), planned[1] + sum(own for _, own in new)

    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _, part=f"layers.{number}": add(part, layer, inputs[1]))
        for number, layer in enumerate(model.layers)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    head = 2.0 * model.head.weight.numel() * rows * length
    return counts | {"head": (head, 2 * head)}


class _Traceable(nn.Module):
    """The model as a function of tokens only, as a tracer needs it.

    It also returns the routers' decisions, because the tracer drops what leads to no output.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> list[Tensor]:
        logits, routings = self.model(tokens)
        return [logits, *(r.causal_choice for r in routings if r.causal_choice is not None)]


def count_fvcore(model: nn.Module, tokens: Tensor) -> float:
    """Forward FLOPs by fvcore."""
    return _products(_fvcore(model, tokens).by_operator())


def _products(macs: Mapping[str, float]) -> float:
    """Multiply-accumulates by operator -> FLOPs of matrix products."""
    return 2.0 * sum(own for operator, own in macs.items() if operator in _PRODUCTS)


def _fvcore(model: nn.Module, tokens: Tensor) -> FlopCountAnalysis:
    """The finished analysis. Raises ValueError for an operator that it cannot count."""
    analysis = FlopCountAnalysis(_Traceable(model), tokens)
    analysis.set_op_handle(
        **{
            "aten::scaled_dot_product_attention": _attention_macs,
            "aten::_grouped_mm": _grouped_macs,
            "aten::matmul": _matmul_macs,
        }
    )
    analysis.tracer_warnings("none").unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            analysis.by_operator()  # traces the model; only then are the others known
        except ValueError:
            raise
        except Exception as error:  # the model itself ran before, so it is fvcore that fails
            raise ValueError(f"fvcore cannot trace it ({(str(error) or repr(error)).splitlines()[0]})") from error
    declared = {name for module in model.modules() for name in getattr(module, "product_free", ())}
    unknown = [name for name in analysis.unsupported_ops() if name.split("::")[-1] not in declared.union(_NO_PRODUCT)]
    if unknown:
        users = [_user(analysis, name) for name in sorted(unknown)]
        raise ValueError(
            f"fvcore has no count for {', '.join(users)}; use plain matrix products, or, if an operator multiplies no "
            "matrices, name it in product_free of the layer"
        )
    return analysis


def _user(analysis: FlopCountAnalysis, operator: str) -> str:
    """`operator` and the innermost module that uses it."""
    modules = [name for name in analysis.by_module() if operator in analysis.unsupported_ops(name)]
    return _within(operator, max(modules, key=len))


def _within(operator: str, module: str) -> str:
    """In words; `module` is its name inside a `_Traceable`."""
    return f"{operator.split('::')[-1]} in {module.removeprefix('model.')}" if module else operator.split("::")[-1]


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """q (B, H, S, E), k (B, K, L, E), v (B, K, L, F): B H S L (E + F) multiply-adds."""
    batch, heads, queries, width = _shape(inputs[0])
    keys, value_width = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    return batch * heads * queries * keys * (width + value_width)


def _matmul_macs(inputs: list[Any], outputs: list[Any]) -> Number:
    if min(len(_shape(factor)) for factor in inputs) < 2:  # which fvcore cannot count, and torch's counter passes over
        where = _within("matmul with a vector", outputs[0].node().scopeName().split("/")[-1])
        raise ValueError(f"fvcore has no count for {where}; give the vector a second dimension")
    return matmul_flop_jit(inputs, outputs)


def _grouped_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """a (M, K), b (E, K, N), each row of a times one of the E matrices: M K N multiply-adds."""
    rows, inner = _shape(inputs[0])
    return rows * inner * _shape(inputs[1])[-1]


def count_torch(model: nn.Module, tokens: Tensor) -> float:
    """Forward FLOPs by torch's dispatcher."""
    with model_flops() as counter:
        model(tokens)
    return float(counter.get_total_flops())
