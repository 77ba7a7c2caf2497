"""FLOPs: three counts that must agree, published tables to the last digit, and the solver."""

import itertools

import pytest
import torch
from torch import nn

from bench.config.compose import configure
from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig, TrainConfig
from bench.errors import UserError
from bench.flops.match import count, dense_baseline, plan
from bench.flops.trace import count_fvcore, count_torch, trace
from bench.methods import build_model
from bench.model import Attention, TokenContext
from bench.model.block import feed_forward_width

torch.set_num_threads(1)

DEPTHS = [None] + [
    DepthConfig(capacity=0.25, router=router, scope=scope, causal=causal, predictor_hidden=8)
    for router, scope, causal in (
        ("learned", "block", "predictor"),
        ("learned", "block", "bce"),
        ("gaussian", "block", "predictor"),
        ("learned", "attention", "predictor"),
        ("learned", "feed_forward", "predictor"),
    )
]
EXPERTS = [
    None,
    ExpertsConfig(n_experts=4),
    ExpertsConfig(n_experts=4, n_shared=1),
    ExpertsConfig(n_experts=4, n_noop=4),
    ExpertsConfig(n_experts=4, routing="expert_choice"),
]
POINTS = [MethodConfig(name="point", depth=d, experts=e) for d, e in itertools.product(DEPTHS, EXPERTS)]


def _name(method):
    depth, experts = method.depth, method.experts
    return f"{depth and (depth.router, depth.scope, depth.causal)} {experts and (experts.routing, experts.n_noop)}"


@pytest.mark.parametrize("method", POINTS, ids=_name)
@pytest.mark.parametrize(("n_layers", "context", "batch", "kv"), [(2, 32, 3, None), (3, 20, 1, 2)])
def test_three_counts_agree_for_every_method(method, n_layers, context, batch, kv):
    shape = ModelConfig(n_layers=n_layers, d_model=32, n_heads=4, n_kv_heads=kv, context=context)
    model = build_model(shape, method, 64)
    counted, parts = trace(model, torch.randint(64, (batch, context)))
    assert counted.disagreement < 1e-3
    if method.depth is None or method.depth.router == "learned":  # noise differs from pass to pass, and with it routing
        assert 2.5 * counted.analytic < counted.train_analytic <= 3 * counted.analytic
    assert max(part.disagreement for part in parts.values()) < 1e-5


@pytest.mark.parametrize("method", POINTS, ids=_name)
def test_every_method_trains_and_is_causal(method):
    torch.manual_seed(0)
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=24)
    model = build_model(shape, method, 64)
    tokens = torch.randint(64, (3, 24))
    logits, routings = model(tokens)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    (loss + sum(v for r in routings for v in r.losses.values())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    lengths = torch.tensor([24, 24, 24])
    changed = tokens.clone()
    changed[:, 15:] = torch.randint(64, (3, 9))
    before, after = model.causal_logits(tokens, lengths), model.causal_logits(changed, lengths)
    assert (before - after)[:, :15].abs().max() < 1e-5
    padded = model.causal_logits(tokens, torch.tensor([24, 10, 1]))
    for row, length in enumerate((24, 10, 1)):
        alone = model.causal_logits(tokens[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(padded[row, :length], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", POINTS, ids=_name)
@torch.no_grad()
def test_executed_flops_of_causal_pass_equal_torch_count(method):
    """Where routing decides how much is computed, the plan plus `executed_flops` is at most what torch counts.

    Rows of a batch are padded to the longest, so torch counts no less; with one row the two are equal.
    """
    torch.manual_seed(0)
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=24)
    model = build_model(shape, method, 64).eval()
    for module in model.modules():  # untrained predictors choose few tokens; make them choose about half
        if type(module).__name__ == "Predictor":
            nn.init.normal_(module.hidden.weight)
            nn.init.normal_(module.score.weight)
    tokens = torch.randint(64, (1, 24))
    _, routings = model(tokens, causal=True)
    said = sum(model.flops(24).values()) + sum(
        float(r.executed_flops) for r in routings if r.executed_flops is not None
    )

    class Causal(nn.Module):
        def forward(self, tokens):
            return model(tokens, causal=True)[0]

    assert said == pytest.approx(count_torch(Causal(), tokens), rel=2e-2 if method.depth and method.experts else 1e-3)


def test_moved_bytes_equal_formula():
    """A row of 32 tokens, 32 wide: 128 bytes a token in float32."""
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=32)
    mod = build_model(shape, MethodConfig(name="mod", depth=DepthConfig(capacity=0.25)), 64)  # one of two layers routes
    assert count(mod, 32).moved_bytes * 32 == 32 * 4 + 5 * 8 * 128
    moe = build_model(shape, MethodConfig(name="moe", experts=ExpertsConfig(n_experts=4)), 64)
    assert count(moe, 32).moved_bytes * 32 == 2 * (32 * 4 * 4 + 32 * 2 * 16 + (3 * 64 + 32) * 128)


def test_residual_stream_is_float32_in_bfloat16_training():
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=32)
    method = MethodConfig(name="mode", depth=DepthConfig(capacity=0.25), experts=ExpertsConfig(n_experts=4))
    model, met = build_model(shape, method, 64), {}

    def watch(module, inputs):
        met[type(module).__name__] = inputs[0].dtype

    for module in model.modules():
        if type(module).__name__ in ("DepthRouted", "TokenChoice", "GroupedExperts"):
            module.register_forward_pre_hook(watch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = model(torch.randint(64, (2, 32)))
    assert logits.dtype == torch.bfloat16
    assert met == dict.fromkeys(("TokenChoice", "GroupedExperts", "DepthRouted"), torch.float32)


def test_product_unknown_to_fvcore_raises():
    class Hidden(nn.Module):
        def forward(self, tokens):
            x = tokens.float()
            return torch.cdist(x, x), []

    with pytest.raises(ValueError, match="cdist"):
        count_fvcore(Hidden(), torch.ones(2, 3, 4))


def test_mod_saves_flops_by_torch_count():
    shape = ModelConfig(n_layers=4, d_model=64, n_heads=4, context=128)
    tokens = torch.randint(64, (2, 128))
    dense = count_torch(build_model(shape, MethodConfig(name="dense"), 64), tokens)
    mod = count_torch(build_model(shape, MethodConfig(name="mod", depth=DepthConfig(predictor_hidden=8)), 64), tokens)
    assert mod / dense == pytest.approx(0.5625, abs=0.02)


# GPT-2 124 M, 1,024 tokens, without biases. Its two-matrix feed-forward of 4 x 768 has as many FLOPs as a
# SwiGLU of 2,048, so our own modules reproduce the published figures.
GPT2 = ModelConfig(n_layers=12, d_model=768, n_heads=12, d_ff=2048, context=1024)


def test_gpt2_flops_equal_published_table():
    with torch.device("meta"):
        model = build_model(GPT2, MethodConfig(name="dense"), 50257)
    parts = model.flops(1024)
    assert parts["attention projections"] / 12 == 3_623_878_656 + 1_207_959_552
    assert parts["attention scores"] / 12 == 2 * 1_610_612_736
    assert parts["feed-forward"] / 12 == 9_663_676_416
    assert parts["lm head"] == 79_047_426_048
    assert sum(parts.values()) == 291_648_307_200
    assert count(model, 1024).train * 1024 == 874_944_921_600


def test_gpt2_flops_equal_palm_formula():
    """6 N + 12 L H Q T a token (Chowdhery et al. 2022, appendix B), N with the position embeddings."""
    matrices = 12 * 12 * 768 * 768
    n = (50257 + 1024) * 768 + matrices + (2 * 12 + 1) * 768
    assert (6 * n + 12 * 12 * 12 * 64 * 1024) * 1024 == 879_894_724_608


@pytest.mark.parametrize(
    ("n_layers", "d_model", "ffw", "n_heads", "kv", "published"),
    [
        (10, 640, 2560, 10, 64, 929_877_196_800),
        (20, 1024, 4096, 16, 64, 4_135_248_199_680),
        (24, 1280, 5120, 10, 128, 7_353_453_772_800),
        (26, 1792, 7168, 14, 128, 14_670_316_437_504),
        (28, 2048, 8192, 16, 128, 20_220_437_594_112),
        (40, 3584, 14336, 28, 128, 83_021_046_743_040),
    ],
)
def test_chinchilla_flops_equal_published_table_a4(n_layers, d_model, ffw, n_heads, kv, published):
    """Its convention: softmax counts 3 H T^2, embeddings and logits are left out, two-matrix feed-forward."""
    assert n_heads * kv == d_model
    with torch.device("meta"):
        attention = Attention(ModelConfig(n_layers=1, d_model=d_model, n_heads=n_heads, context=2048))
    layer = sum(attention.flops(2048).values()) + 3 * n_heads * 2048**2 + 2 * 2 * d_model * ffw * 2048
    assert 3 * n_layers * layer == published


def _config(method, contract="train_flops", *more):
    shape = ["model.n_layers=8", "model.d_model=128", "model.n_heads=4"]
    words = [f"+method={method.split('/')[0]}", f"contract={contract}", "train.budget_flops=1e11", *shape, *more]
    if "/" in method:
        words.append(f"method.variant={method.split('/')[1]}")
    return configure(words)


METHODS = ["moe", "mod", "mode/staged", "mode/integrated", "mod_random", "expert_choice", "shallow"]


@pytest.mark.parametrize("method", ["dense", *METHODS])
def test_plan_meets_training_flops_within_a_step(method):
    solved = plan(_config(method), 256)
    assert abs(solved.steps * solved.step_flops - 1e11) <= solved.step_flops / 2
    assert (solved.model.n_layers, solved.model.d_model) == (8, 128)


@pytest.mark.parametrize("method", ["mod", "mode/staged", "mode/integrated"])
@pytest.mark.parametrize(
    ("contract", "figure"),
    [
        ("forward_flops", lambda c: c.forward),
        ("active_params", lambda c: c.params_active),
        ("total_params", lambda c: c.params_total),
    ],
)
def test_solved_shape_matches_the_baseline(method, contract, figure):
    config = _config(method, contract, "model.n_layers=4")
    own, baseline = plan(config, 256), plan(dense_baseline(config), 256)
    assert figure(own.count) == pytest.approx(figure(baseline.count), rel=0.005)


@pytest.mark.parametrize("contract", ["forward_flops", "active_params", "total_params"])
def test_experts_of_given_width_are_matched_by_depth(contract):
    config = _config("moe", contract, "model.n_layers=2", "method.experts.hidden=64")
    with pytest.raises(UserError, match="no depth and width of moe comes within 0.5%"):
        plan(config, 256)
    config.contract.tolerance = 0.35
    solved = plan(config, 256).model
    assert solved.n_layers == {"forward_flops": 3, "active_params": 3, "total_params": 2}[contract]
    assert solved.d_ff == feed_forward_width(config.model)


@pytest.mark.parametrize("contract", ["tokens", "active_params", "forward_flops"])
def test_plan_of_equal_tokens_matches_the_baseline(contract):
    config = _config("mod", contract, "model.n_layers=4")
    assert plan(config, 256).tokens == plan(dense_baseline(config), 256).tokens


def test_forward_flops_deepens_mod_at_the_tuned_settings_of_dense():
    """The paper's comparison: the baseline keeps its own best shape, batch and rate, and MoD spends them on depth."""
    config, usual = (configure(["+method=mod", *words]) for words in (["contract=forward_flops"], []))
    assert usual.baseline is not None  # MoD has tuned settings of its own under train_flops
    dense = dense_baseline(config)
    assert (dense.model, dense.train) == (dense_baseline(usual).model, dense_baseline(usual).train)
    assert config.train == dense.train
    own, baseline = plan(config, 256), plan(dense, 256)
    assert baseline.model == dense.model and baseline.steps == plan(dense_baseline(usual), 256).steps
    assert own.model.n_layers > baseline.model.n_layers and own.model.d_model == baseline.model.d_model
    assert own.count.forward == pytest.approx(baseline.count.forward, rel=config.contract.tolerance)
    assert own.tokens == baseline.tokens
    assert own.steps * own.step_flops == pytest.approx(baseline.steps * baseline.step_flops, rel=0.01)


def test_budget_below_one_step_is_refused():
    config = _config("mod")
    config.train = TrainConfig(budget_flops=1e6)
    with pytest.raises(UserError, match="train.budget_flops=1e\\+06 is less than one step"):
        plan(config, 256)


@pytest.mark.parametrize(
    ("words", "without_input_gradient", "without_gradient"),
    [
        (["+method=dense"], 0, 0),
        (["+method=mod", "method.depth.causal=predictor"], 32 * 16 * 24, 32 * 24),  # hidden matrix; ranking
        (["+method=mod", "method.depth.causal=bce"], 0, 0),
        (["+method=mod", "method.depth.causal=expert_threshold"], 0, 32 * 24),
        (["+method=mod_random"], 0, 0),
    ],
)
def test_backward_is_twice_forward_but_for_detached_products(words, without_input_gradient, without_gradient):
    """One of two layers is routed; 24 tokens, 32 wide, a predictor of 16."""
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=24)
    hidden = ["method.depth.predictor_hidden=16"] if "causal=predictor" in words[-1] else []
    counted = count(build_model(shape, configure([*words, *hidden]).method, 64), 24)
    missing = 2 * without_input_gradient + 4 * without_gradient
    assert 24 * (2 * counted.forward - counted.backward) == pytest.approx(missing)


def test_mode_variants_have_their_axes():
    staged, integrated = _config("mode/staged").method, _config("mode/integrated").method
    assert staged.depth is not None and staged.experts.n_noop == 0
    assert integrated.depth is None and integrated.experts.n_noop > 0


def test_selected_tokens_keep_original_positions():
    rotary = 10.0 * torch.arange(6.0).view(1, 6, 1, 1, 1)
    chosen = TokenContext(torch.arange(6)[None], rotary).select(torch.tensor([[1, 4], [0, 5]]), None)
    assert chosen.positions.tolist() == [[1, 4], [0, 5]]
    assert chosen.rotary.flatten().tolist() == [10, 40, 0, 50]
