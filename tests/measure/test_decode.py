"""What a decoding step is said to cost, against the whole-row count and against what the cache holds."""

import pytest
import torch

from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig
from bench.measure.decode import Roofline, _Decoder, _first_token, _point, decode_point, step_bytes
from bench.methods import build_model
from bench.methods.depth import DepthRouted, calibrate, using_causal_router
from bench.methods.routed import expecting
from bench.model.cache import KVCache

torch.set_num_threads(1)
SHAPE = ModelConfig(n_layers=4, d_model=32, n_heads=4, n_kv_heads=2, context=64, d_ff=48)
DENSE = MethodConfig("dense")
MOD = MethodConfig("mod", depth=DepthConfig(0.25, causal="threshold"))
MOE = MethodConfig("moe", experts=ExpertsConfig(n_experts=4))
EXPERT_CHOICE = MethodConfig("expert_choice", experts=ExpertsConfig(n_experts=4, routing="expert_choice"))


def _model(method):
    return build_model(SHAPE, method, 50).eval()


def _text(rows, length=64, seed=0):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", [DENSE, MOE, EXPERT_CHOICE, MOD], ids=lambda method: method.name)
def test_step_flops_add_up_to_those_of_a_row(method):
    """A layer's step that finds n - 1 keys computes n pairs; a row's worth of such steps is the n x n of a row.

    In a routed layer n is the quarter of 64 that goes through, and 60 tokens leave n - 1 keys.
    """
    for layer in _model(method).layers:
        behind = 60 if isinstance(layer, DepthRouted) else 63
        assert 64 * layer.step_cost(1, behind).flops == pytest.approx(sum(layer.flops(64).values()))


def test_step_weights_are_those_that_any_row_uses():
    model = _model(MOD)
    routed = model.layers[1]
    block = sum(p.numel() for p in routed.branch.parameters())
    router = routed.router.score.weight.numel()
    for rows in (1, 3):
        wanted = router + block * (1 - 0.75**rows)
        assert routed.step_cost(rows, 0).weights == pytest.approx(wanted)
    experts = _model(MOE).layers[0].branch.feed_forward
    own = sum(p.numel() for p in experts.experts.parameters())
    others = sum(p.numel() for p in experts.parameters()) - own
    assert _model(MOE).layers[0].step_cost(1, 0).weights == pytest.approx(
        own / 2 + others + sum(p.numel() for p in _model(MOE).layers[0].branch.attention.parameters())
    )


@torch.no_grad()
def test_step_cached_elements_equal_the_cache():
    model, cache = _model(DENSE), KVCache(3)
    model.extend(_text(3).flatten(), [64] * 3, cache)
    assert model.step_cost(3, 63).cached * 4 == cache.held_bytes


def test_roofline_is_bound_by_reading_or_computing():
    model = _model(DENSE)
    cost = model.step_cost(2, 10)
    assert Roofline(flops=1.0, bytes=1e30).seconds(model, 2, 10) == cost.flops
    assert Roofline(flops=1e30, bytes=1.0).seconds(model, 2, 10) == step_bytes(model, 2, 10)


@torch.no_grad()
def test_decode_point_reports_forms_shares_and_cache():
    dense, mod = _model(DENSE), _model(MOD)
    for parameter in mod.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    text = _text(4, 49)
    calibrate(mod, text)
    with using_causal_router(mod, "threshold"):
        baseline, point = decode_point(dense, [mod], text, 32, 16, Roofline(1e11, 1e10))
        _, routings = mod(text, causal=True)
    assert point.form in ("gathered", "masked") and baseline.form == "gathered"
    assert (point.batch_size, point.context, point.steps) == (4, 32, 16)
    processed = sum(int(routing.selected[:, 33:49].sum()) for routing in routings)
    assert point.fraction_processed == pytest.approx(processed / (4 * 16 * len(routings)))
    held = sum(int(routing.selected.sum()) for routing in routings) + 2 * 4 * 49
    assert point.kv_cache_held_bytes == held * 2 * 16 * 4
    assert baseline.kv_cache_held_bytes == 4 * 4 * 49 * 2 * 16 * 4
    assert point.kv_cache_ratio == point.kv_cache_bytes / baseline.kv_cache_bytes
    assert point.speedup_realised.samples == 2 and baseline.speedup_realised is None
    assert 1 < point.speedup_ideal < 2


@torch.no_grad()
def test_fraction_processed_is_zero_when_all_skip_absent_when_unrouted():
    mod = _model(MOD)
    for layer in (layer for layer in mod.layers if isinstance(layer, DepthRouted)):
        layer.causal_router.value.fill_(1e9)
    baseline, point = decode_point(_model(DENSE), [mod], _text(2, 25), 8, 16, Roofline(1e11, 1e10))
    assert point.fraction_processed == 0.0 and baseline.fraction_processed is None


@pytest.mark.parametrize("steps", [1, 7])
@torch.no_grad()
def test_decode_point_of_few_steps_has_no_speedup(steps):
    _, point = decode_point(_model(DENSE), [_model(MOE)], _text(2, 9 + steps), 8, steps, Roofline(1e11, 1e10))
    assert point.steps == steps and point.tokens_per_second > 0
    assert point.speedup_realised is None and point.speedup_ideal is not None


@torch.no_grad()
def test_lay_out_for_decoding_changes_no_value():
    model, text = _model(MOE), _text(2)
    before = model.causal_logits(text, torch.tensor([64, 64]))
    names = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.lay_out_for_decoding()
    torch.testing.assert_close(model.causal_logits(text, torch.tensor([64, 64])), before, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, names[name]) for name, tensor in model.state_dict().items())


def _decoder(model, seconds):
    decoder = _Decoder(model, "gathered", 2)
    decoder.read(_text(2, 8))
    decoder.seconds = seconds
    return decoder


@torch.no_grad()
def test_decode_point_from_known_seconds_equals_formula():
    """Hand-made: the baseline takes 4 s a step, the model 2 s but for one step of 10 s in the second eight."""
    baseline = _decoder(_model(DENSE), [4.0] * 16)
    own = _decoder(_model(MOE), [2.0] * 15 + [10.0])
    roofline = Roofline(flops=1e9, bytes=1e3)
    point = _point(own, baseline, 8, 0.5, 0, roofline)
    assert point.tokens_per_second == 2 * 16 / 40
    assert point.step_seconds.median == 2.0
    assert point.step_seconds_p95 == pytest.approx(
        2.0 + 0.25 * 8.0
    )  # three quarters from the 14th to the 15th of 0..15
    assert point.speedup_realised.high == 4.0 / 2.0
    assert point.speedup_realised.low == pytest.approx(32.0 / 24.0)
    assert point.roofline_share == pytest.approx(roofline.seconds(own.model, 2, 16) * 16 / 40)
    assert point.speedup_ideal == pytest.approx(
        roofline.seconds(baseline.model, 2, 16) / roofline.seconds(own.model, 2, 16)
    )


@torch.no_grad()
def test_ideal_speedup_uses_the_share_processed():
    baseline, own = _decoder(_model(DENSE), [1.0] * 8), _decoder(_model(MOD), [1.0] * 8)
    held = own.held_when_routed()
    routed = [layer for layer in own.model.layers if isinstance(layer, DepthRouted)]
    for layer in routed:
        layer.causal_router.value.fill_(-1e9)  # all
    own.read(_text(2, 8, seed=1))
    roofline = Roofline(flops=1e30, bytes=1.0)
    point = _point(own, baseline, 8, 0.5, held, roofline)
    assert point.fraction_processed == 1.0
    with expecting(own.model, 1.0):
        everything = roofline.seconds(own.model, 2, 12)
    assert point.speedup_ideal == roofline.seconds(baseline.model, 2, 12) / everything
    assert everything > roofline.seconds(own.model, 2, 12)


@torch.no_grad()
def test_prompts_are_read_interleaved_several_times():
    order = []
    decoders = [_Decoder(_model(DENSE), "gathered", 2) for _ in range(2)]
    for name, decoder in zip("ab", decoders, strict=True):
        decoder.read = lambda prompts, name=name: order.append(name) or float(len(order))
    assert _first_token(decoders, _text(2)) == [5.0, 6.0]  # of 1, 4, 5, 8, 9 and 2, 3, 6, 7, 10
    assert "".join(order) == "abbaabbaab"
    order.clear()
    _first_token(decoders, torch.zeros(2, 5000, dtype=torch.int64))
    assert order == ["a", "b"]
