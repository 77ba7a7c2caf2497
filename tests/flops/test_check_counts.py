"""Layers whose counts are wrong are refused, with the part that differs and the likely cause."""

import re

import pytest
import torch

from bench.config.schema import ModelConfig
from bench.errors import UserError
from bench.flops.trace import check_counts, trace_parts
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
    assert "the forward FLOP counts of mine, seed 0 disagree by" in message and "it was not trained" in message
    assert "every other part agrees" in message and cause in message and "\n" not in message


def test_unknown_operator_is_refused_until_declared(monkeypatch):
    model = _model(_Bessel(_block()))
    with pytest.raises(UserError, match="fvcore has no count for i0; .*product_free"):
        check_counts("mine", model, TOKENS)
    monkeypatch.setattr(_Bessel, "product_free", ("i0",))
    assert check_counts("mine", model, TOKENS).disagreement < 1e-6


def test_trace_parts_add_up_to_the_whole():
    model = _model(Residual(_block()), Residual(_block()), _Positive(_block(), 32, 2, 0.5))
    parts, whole = trace_parts(model, TOKENS), check_counts("mine", model, TOKENS)
    assert list(parts) == ["Residual (layers 0, 1)", "_Positive (layers 2)", "head"]
    total = 2 * parts["Residual (layers 0, 1)"].torch + parts["_Positive (layers 2)"].torch + parts["head"].torch
    assert total == whole.torch
