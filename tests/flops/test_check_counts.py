"""Layers whose counts are wrong are refused, with the part that differs and the likely cause."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.config.compose import configure
from bench.config.schema import ModelConfig
from bench.errors import UserError
from bench.flops.trace import check_counts, trace
from bench.methods import build_model
from bench.methods.routed import RoutedLayer, Selection
from bench.model import Attention, Block, FeedForward, Layer, Residual, Routing, Transformer

torch.set_num_threads(1)
T = 24
SHAPE = ModelConfig(n_layers=3, d_model=32, n_heads=4, context=T)
TOKENS = torch.randint(64, (3, T), generator=torch.Generator().manual_seed(0))


def _block():
    return Block(Attention(SHAPE), FeedForward(SHAPE))


def _model(*layers: Layer) -> Transformer:
    torch.manual_seed(0)
    return Transformer(SHAPE, layers, 64)


class _Masked(Layer):
    """Computes every token and keeps half of them, which is all that it counts."""

    def __init__(self):
        super().__init__()
        self.branch = FeedForward(SHAPE)

    def forward(self, x, context):
        return x + self.branch(x, context) * (context.positions % 2 == 0).unsqueeze(-1)

    def flops(self, tokens):
        return self.branch.flops(tokens // 2)


class _Positive(RoutedLayer):
    """Chooses by its input, so rows choose different numbers of tokens."""

    def choose(self, x, context):
        return x[..., 0] > 0


class _PaddingUncounted(_Positive):
    def route(self, x, context):
        chosen = self.choose(x, context)
        return Selection.of(chosen), Routing(self.layer, selected=chosen)

    def forward(self, x, context):
        y = super().forward(x, context)
        routing = context.routings[-1]
        counts = routing.selected.sum(dim=-1).tolist()
        spent = sum(sum(self.branch.flops(n).values()) for n in counts)
        routing.executed_flops = torch.tensor(spent - len(x) * sum(self.flops(T).values()))
        return y


class _Overcounted(Residual):
    def flops(self, tokens):
        return {part: 2 * flops for part, flops in super().flops(tokens).items()}


class _Bessel(Residual):
    product_free: tuple[str, ...] = ()

    def forward(self, x, context):
        return super().forward(x, context) + torch.i0(x)


class _Forgetful(RoutedLayer):
    """Gates by a product that `router_flops` leaves out: under 0.1 % of the model."""

    def __init__(self, width: int):
        model = replace(SHAPE, d_model=width)
        super().__init__(Block(Attention(model), FeedForward(model)), width, 1, 0.5)
        self.score = nn.Linear(width, 1)

    def choose(self, x, context):
        return (context.positions % 2 == 0).expand(x.shape[:2])

    def gate(self, taken):
        return self.score(taken).squeeze(-1)


class _ChoosesByProduct(_Forgetful):
    """States what it forgot, but takes the choice's product for one with gradients."""

    def choose(self, x, context):
        return 0 * self.score(x).squeeze(-1) + context.positions % 2 == 0

    def router_flops(self, tokens, chosen):
        return {"router": 2.0 * self.score.weight.numel() * (tokens + chosen)}


class _Detached(_ChoosesByProduct):
    def router_backward_flops(self, tokens, chosen):
        return {"router": 4.0 * self.score.weight.numel() * chosen}


class _ByVector(Residual):
    """A product with a vector, at which fvcore's own count fails."""

    def __init__(self, branch):
        super().__init__(branch)
        self.score = nn.Parameter(torch.ones(32))

    def forward(self, x, context):
        return super().forward(x, context) * (x @ self.score).unsqueeze(-1)


def test_routed_layer_with_ragged_rows_counts_padding():
    model = _model(Residual(_block()), _Positive(_block(), 32, 1, 0.5))
    counted = check_counts("mine", model, TOKENS)
    chosen = model(TOKENS)[1][0].selected.sum(dim=-1)
    assert chosen.min() < chosen.max()  # rows are padded, or the test shows little
    assert counted.disagreement < 1e-6


@pytest.mark.parametrize(
    ("layer", "part", "cause"),
    [
        (_Masked, "_Masked (layers 1)", "computed and then masked"),
        (lambda: _PaddingUncounted(_block(), 32, 1, 0.5), "_PaddingUncounted (layers 1)", "padded to the widest"),
        (lambda: _Overcounted(_block()), "_Overcounted (layers 1)", "counts products that are not computed"),
    ],
)
def test_wrong_count_names_its_part_and_likely_cause(layer, part, cause):
    model = _model(Residual(_block()), layer(), Residual(_block()))
    with pytest.raises(UserError, match=re.escape(f"{part}: counted ")) as caught:
        check_counts("mine, seed 0", model, TOKENS)
    message = str(caught.value)
    assert "the FLOP counts of mine, seed 0 disagree by" in message and "it was not trained" in message
    assert "every other part agrees" in message and cause in message and "\n" not in message


def test_unknown_operator_is_refused_until_declared(monkeypatch):
    model = _model(_Bessel(_block()))
    with pytest.raises(UserError, match=r"fvcore has no count for i0 in layers.0; .*product_free"):
        check_counts("mine", model, TOKENS)
    monkeypatch.setattr(_Bessel, "product_free", ("i0",))
    assert check_counts("mine", model, TOKENS).disagreement < 1e-6


def test_forgotten_router_flops_below_the_total_tolerance_are_found():
    shape = replace(SHAPE, d_model=128)
    dense = [Residual(Block(Attention(shape), FeedForward(shape))) for _ in range(7)]
    model = Transformer(shape, [*dense, _Forgetful(128)], 64)
    assert trace(model, TOKENS)[0].disagreement < 1e-3
    with pytest.raises(UserError, match=r"By part, _Forgetful \(layers 7\): .*Likely cause: .*router_flops"):
        check_counts("mine", model, TOKENS)


def test_gradient_that_is_not_computed_is_found():
    model = _model(Residual(_block()), _ChoosesByProduct(32))
    with pytest.raises(UserError, match=r"_ChoosesByProduct \(layers 1\): with backward .*Likely cause: ") as found:
        check_counts("mine", model, TOKENS)
    assert "router_backward_flops() counts a gradient that is not computed" in str(found.value)
    assert "\n" not in str(found.value)
    assert check_counts("mine", _model(_Detached(32)), TOKENS).disagreement == 0


def test_product_with_a_vector_names_its_module():
    wanted = "the FLOPs of mine cannot be counted: fvcore has no count for matmul with a vector in layers.1; "
    with pytest.raises(UserError, match=wanted) as found:
        check_counts("mine", _model(Residual(_block()), _ByVector(_block())), TOKENS)
    assert "\n" not in str(found.value)


def test_check_leaves_no_trace_in_a_model():
    model = build_model(SHAPE, configure(["+method=mod_random"]).method, 64).train()
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_counts("mine", model, TOKENS)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients == {"norm.weight"} and model.norm.weight.grad.eq(1).all()


def test_trace_parts_add_up_to_the_whole():
    model = _model(Residual(_block()), Residual(_block()), _Positive(_block(), 32, 2, 0.5))
    whole, parts = trace(model, TOKENS)
    assert list(parts) == ["Residual (layers 0, 1)", "_Positive (layers 2)", "head"]
    residual, positive, head = parts.values()
    for figure in ("analytic", "fvcore", "torch", "train_analytic", "train_torch"):
        total = 2 * getattr(residual, figure) + getattr(positive, figure) + getattr(head, figure)
        assert total == getattr(whole, figure), figure
