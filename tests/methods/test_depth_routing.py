"""The depth-routed layer against a plain per-row reference, and each mistake known from other implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.schema import DepthConfig, ModelConfig
from bench.methods.depth import DepthRouted
from bench.methods.routed import capacity_tokens
from bench.model import Attention, Block, FeedForward, Residual, TokenContext
from bench.model.attention import rotary_table

torch.set_num_threads(1)
D, HEADS, T = 16, 2, 12
SHAPE = ModelConfig(n_layers=1, d_model=D, n_heads=HEADS, context=T, d_ff=24)


def _context(length=T, valid=None, causal=False):
    return TokenContext(
        torch.arange(length)[None], rotary_table(length, D // HEADS, SHAPE.rope_theta)[None], valid, causal
    )


def _layer(seed=0, **changes):
    torch.manual_seed(seed)
    config = DepthConfig(**({"capacity": 0.25, "predictor_hidden": 8} | changes))
    layer = DepthRouted(Block(Attention(SHAPE), FeedForward(SHAPE)), config, D, T, layer=0)
    for parameter in layer.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return layer


def _rows(batch=3, length=T, seed=1):
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(seed))


def _norm(x, weight):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + SHAPE.norm_eps) * weight


def _plain_block(block, x, positions):
    """f of the chosen tokens x (S, D) at their original `positions`, written out token by token."""
    attention, feed_forward = block.attention, block.feed_forward
    width = D // HEADS
    heads = (_norm(x, attention.norm.weight) @ attention.qkv.weight.t()).view(len(x), 3, HEADS, width)
    query, key, value = heads.unbind(1)

    def turned(vector, position):
        out = torch.empty_like(vector)
        for pair in range(width // 2):
            angle = position * SHAPE.rope_theta ** (-2 * pair / width)
            a, b = vector[2 * pair], vector[2 * pair + 1]
            out[2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    mixed = torch.zeros(len(x), HEADS, width)
    for head in range(HEADS):
        for i, here in enumerate(positions):
            seen = [j for j, there in enumerate(positions) if there <= here]
            scores = torch.stack(
                [turned(query[i, head], here) @ turned(key[j, head], positions[j]) / math.sqrt(width) for j in seen]
            )
            mixed[i, head] = (scores.softmax(0).unsqueeze(1) * value[seen, head]).sum(0)
    attended = mixed.flatten(1) @ attention.out.weight.t()
    gate, up = (_norm(x + attended, feed_forward.norm.weight) @ feed_forward.gate_up.weight.t()).chunk(2, -1)
    return attended + (F.silu(gate) * up) @ feed_forward.down.weight.t()


def _reference(layer, x, chosen):
    """x + r f(x) for the `chosen` positions of each row, x for the rest."""
    out = x.clone()
    for row in range(len(x)):
        positions = chosen[row]
        if positions:
            r = x[row, positions] @ layer.router.score.weight[0]
            out[row, positions] += r.unsqueeze(1) * _plain_block(layer.branch, x[row, positions], positions)
    return out


def _top(layer, x, k):
    scores = x @ layer.router.score.weight[0]
    return [sorted(row.topk(k).indices.tolist()) for row in scores]


@torch.no_grad()
def test_depth_layer_in_training_equals_reference():
    layer, x = _layer(), _rows()
    torch.testing.assert_close(layer(x, _context()), _reference(layer, x, _top(layer, x, 3)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("causal", ["predictor", "bce"])
def test_depth_layer_in_causal_pass_equals_reference(causal):
    layer, x = _layer(causal=causal), _rows(6)
    scores = layer.router.rank(x, torch.arange(T)[None])
    wanted = layer.causal_router(x, scores) > 0
    chosen = [row.nonzero().flatten().tolist() for row in wanted]
    assert any(chosen) and len({len(c) for c in chosen}) > 1  # ragged, or the test shows little
    out = layer(x, _context(causal=True))
    torch.testing.assert_close(out, _reference(layer, x, chosen), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_depth_layer_with_padding_gives_it_no_capacity():
    layer, x = _layer(), _rows()
    lengths = [12, 8, 4]
    valid = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    context = _context(valid=valid)
    out = layer(x, context)
    selected = context.routings[0].selected
    assert selected.sum(1).tolist() == [3, 2, 1]
    assert not (selected & ~valid).any()
    for row, length in enumerate(lengths):  # a padded row is what it is alone and unpadded
        alone = layer(x[row : row + 1, :length], _context(length))
        torch.testing.assert_close(out[row, :length], alone[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_depth_layer_with_zero_router_is_identity():
    layer, x = _layer(), _rows()
    layer.router.score.weight.zero_()
    torch.testing.assert_close(layer(x, _context()), x)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, T), st.floats(0.01, 1.0), st.booleans())
@torch.no_grad()
def test_top_k_with_ties_chooses_exactly_k(length, capacity, ties):
    layer = _layer(capacity=capacity)
    x = torch.ones(2, length, D) if ties else _rows(2, length)
    context = _context(length)
    layer(x, context)
    k = capacity_tokens(capacity, length)
    assert 1 <= k <= length
    assert context.routings[0].selected.sum(1).tolist() == [k, k]


def test_capacity_of_the_paper_is_256_of_2048():
    assert capacity_tokens(0.125, 2048) == 256
    assert capacity_tokens(0.125, 1) == 1


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_depth_layer_rows_are_independent(causal):
    layer, x = _layer(), _rows()
    other = x.clone()
    other[1:] = _rows(seed=9)[1:]
    torch.testing.assert_close(layer(x, _context(causal=causal))[0], layer(other, _context(causal=causal))[0])


def test_depth_layer_at_full_capacity_equals_gated_dense():
    layer = _layer(capacity=1.0)
    x = _rows().requires_grad_()
    y = x.detach().clone().requires_grad_()
    context = _context()
    routed = layer(x, context)
    gated = y + layer.router.score(y) * layer.branch(y, _context())
    torch.testing.assert_close(routed, gated, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(routed)
    torch.testing.assert_close(
        torch.autograd.grad((routed * weight).sum(), [x, *layer.branch.parameters(), layer.router.score.weight]),
        torch.autograd.grad((gated * weight).sum(), [y, *layer.branch.parameters(), layer.router.score.weight]),
        atol=1e-4,
        rtol=1e-3,
    )


def test_router_gets_gradient_from_language_model():
    layer, x = _layer(), _rows()
    layer(x, _context()).square().sum().backward()
    assert layer.router.score.weight.grad.abs().max() > 1e-6


def test_predictor_loss_reaches_only_the_predictor():
    layer, x = _layer(), _rows().requires_grad_()
    context = _context()
    layer(x, context)
    routing = context.routings[0]
    scores = layer.router.rank(x, torch.arange(T)[None])
    logits = layer.causal_router(x, scores)
    member = torch.zeros(3, T)
    for row, positions in enumerate(_top(layer, x.detach(), 3)):
        member[row, positions] = 1.0
    by_hand = -(member * logits.sigmoid().log() + (1 - member) * (1 - logits.sigmoid()).log()).mean()
    torch.testing.assert_close(routing.losses["causal_loss"], by_hand)
    routing.losses["causal_loss"].backward()
    touched = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched and all(name.startswith("causal_router") for name in touched)
    assert x.grad is None or x.grad.abs().max() == 0


@torch.no_grad()
def test_top_k_looks_ahead_and_causal_router_does_not():
    layer, x = _layer(), _rows(1)
    high = layer.router.score.weight[0]
    x[:, 0] = 5 * high  # chosen, until later tokens score higher
    changed = x.clone()
    changed[:, 6:] = 10 * high

    def moved(causal):
        return (layer(x, _context(causal=causal)) - layer(changed, _context(causal=causal)))[:, :6].abs().max().item()

    assert moved(causal=False) > 1e-3
    assert moved(causal=True) < 1e-6


@torch.no_grad()
def test_gaussian_router_is_random_in_training_fixed_in_evaluation():
    layer, x = _layer(router="gaussian"), _rows()

    def selected(causal):
        context = _context(causal=causal)
        layer(x, context)
        return context.routings[0].selected

    layer.train()
    assert not torch.equal(selected(False), selected(False))
    layer.eval()
    assert torch.equal(selected(True), selected(True))


@pytest.mark.parametrize("causal", ["predictor", "bce", "threshold"])
def test_gaussian_router_has_one_causal_router_and_no_loss(causal):
    """Whatever causal router is asked for, there is nothing in noise to learn."""
    layer, context = _layer(router="gaussian", causal=causal).train(), _context()
    assert list(layer.causal_routers) == [layer.causal_router_name] == ["noise_threshold"]
    layer(_rows(), context)
    (routing,) = context.routings
    assert routing.losses == {} and "causal_loss" not in routing.metrics
    above = layer.causal_router(torch.empty(0), torch.randn(4000, generator=torch.Generator().manual_seed(0))) > 0
    assert above.float().mean() == pytest.approx(0.25, abs=0.03)
    assert layer.step_cost(1, 4).flops > 0


@pytest.mark.parametrize("causal", ["predictor", "bce", "threshold", "expert_threshold"])
def test_predictor_accuracy_is_absent_for_uncalibrated_threshold(causal):
    """A threshold is set after training: until then it lets nothing through, and agreeing so often says nothing."""
    layer, context = _layer(causal=causal).train(), _context()
    layer(_rows(), context)
    told = context.routings[0].metrics.keys()
    assert ("predictor_accuracy" in told) == (causal != "threshold")
    assert "expert_threshold_accuracy" in told


@torch.no_grad()
def test_residual_layer_adds_its_residual_once():
    torch.manual_seed(0)
    layer = Residual(Block(Attention(SHAPE), FeedForward(SHAPE)))
    x = _rows(2)
    expected = torch.stack([row + _plain_block(layer.branch, row, list(range(T))) for row in x])
    torch.testing.assert_close(layer(x, _context()), expected, atol=1e-5, rtol=1e-4)
