"""Expert layers against a plain loop over experts."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from bench.config.schema import ExpertsConfig, ModelConfig
from bench.methods.experts import ExpertChoice, TokenChoice, expert_width
from bench.methods.permute import combine, dispatch
from bench.methods.routers import LearnedRouter
from bench.model import FeedForward, TokenContext
from bench.model.block import Visit

torch.set_num_threads(1)
D = 16
SHAPE = ModelConfig(n_layers=1, d_model=D, n_heads=2, context=10, d_ff=32)


def _context(valid=None, causal=False):
    return TokenContext(torch.empty(0), torch.empty(0), valid, causal)


def _layer(kind=TokenChoice, seed=0, **changes):
    torch.manual_seed(seed)
    layer = kind(SHAPE, ExpertsConfig(**({"n_experts": 4, "top_k": 2} | changes)), 0)
    for parameter in layer.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return layer


def _rows(batch=2, length=10, seed=1):
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(seed))


def _expert(layer, number, x):
    gate, up = (x @ layer.experts.gate_up[number].t()).chunk(2, -1)
    return (F.silu(gate) * up) @ layer.experts.down[number].t()


def _norm(layer, x):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + SHAPE.norm_eps) * layer.norm.weight


def _token_choice(layer, x):
    """Each token by itself: its best choices, gates that add up to 1, no-ops that add nothing."""
    config = layer.config
    out = []
    for token in _norm(layer, x).reshape(-1, D):
        probabilities = (layer.router.weight @ token).softmax(0)
        best = probabilities.topk(config.top_k).indices.tolist()
        total = sum(probabilities[e] for e in best) if config.top_k > 1 else 1.0
        mixed = torch.zeros(D)
        for e in best:
            if e < config.n_experts:
                mixed = mixed + probabilities[e] / total * _expert(layer, e, token)
        out.append(mixed)
    added = torch.stack(out).view_as(x)
    return added if layer.shared is None else added + layer.shared(x, _context())


@pytest.mark.parametrize("changes", [{}, {"top_k": 1}, {"n_noop": 4}, {"n_shared": 1}, {"n_noop": 2, "top_k": 3}])
def test_token_choice_equals_loop_forward_and_backward(changes):
    layer, x = _layer(**changes), _rows()
    got, wanted = layer(x, _context()), _token_choice(layer, x)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(got)
    parameters = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad((got * weight).sum(), parameters, allow_unused=True),
        torch.autograd.grad((wanted * weight).sum(), parameters, allow_unused=True),
        atol=1e-4,
        rtol=1e-3,
    )


@torch.no_grad()
def test_token_choice_in_inference_equals_training():
    layer, x = _layer(n_noop=2), _rows()
    with torch.enable_grad():
        trained = layer(x, _context()).detach()
    torch.testing.assert_close(layer(x, _context()), trained)


def test_single_expert_equals_dense_feed_forward():
    layer = _layer(n_experts=1, top_k=1, hidden=32)
    dense = FeedForward(SHAPE)
    with torch.no_grad():
        dense.gate_up.weight.copy_(layer.experts.gate_up[0])
        dense.down.weight.copy_(layer.experts.down[0])
    x, y = _rows().requires_grad_(), _rows().requires_grad_()
    got, wanted = layer(x, _context()), dense(y, _context())
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    got.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(layer.experts.down.grad[0], dense.down.weight.grad, atol=1e-4, rtol=1e-3)


def test_expert_width_gives_equal_active_flops():
    shape = ModelConfig(n_layers=8, d_model=256, n_heads=4, context=256)
    experts = TokenChoice(shape, ExpertsConfig(), 0).flops(256)["experts"]
    assert experts == FeedForward(shape).flops(256)["feed-forward"]
    assert expert_width(shape, ExpertsConfig(top_k=2, n_shared=2)) * 4 == 704


@pytest.mark.parametrize("changes", [{}, {"n_experts": 6}, {"n_experts": 6, "n_shared": 1}])
def test_expected_experts_are_equal_for_both_kinds_of_choice(changes):
    """One token, or a row whose length no quota divides: what a step costs and what is active are expectations."""
    tokens, experts = _layer(TokenChoice, **changes), _layer(ExpertChoice, **changes)
    assert tokens.step_cost(Visit(3, 1.0, 7)) == experts.step_cost(Visit(3, 1.0, 7))
    assert tokens.active_params() == experts.active_params()
    own = sum(p.numel() for p in experts.experts.parameters()) / experts.config.n_experts
    others = sum(p.numel() for p in experts.parameters()) - own * experts.config.n_experts
    assert experts.active_params() == pytest.approx(others + 2 * own)


@torch.no_grad()
def test_token_choice_with_padding_visits_no_expert_for_it():
    layer, x = _layer(), _rows()
    valid = torch.arange(10) < torch.tensor([[10], [4]])
    context = _context(valid)
    out = layer(x, context)
    assert context.routings[0].expert_counts.sum() == 2 * 14
    torch.testing.assert_close(out[1, :4], layer(x[1:, :4], _context())[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[10, 10], [10, 3]])
def test_balance_and_z_losses_equal_their_formulas_row_by_row(lengths):
    """Balance: DeepSeek-V3, arXiv 2412.19437, eq. 17 to 20, of each sequence; z: ST-MoE, arXiv 2202.08906, eq. 5."""
    layer, x = _layer(balance_loss=1.0, z_loss=1.0), _rows()
    valid = torch.arange(10) < torch.tensor(lengths).unsqueeze(1)
    context = _context(None if valid.all() else valid)
    layer(x, context)
    balance, z = [], []
    for row, length in zip(_norm(layer, x), lengths, strict=True):
        logits = row[:length] @ layer.router.weight.t()
        probabilities = logits.softmax(-1)
        chosen = probabilities.topk(2).indices
        frequency = torch.stack([4 / (2 * length) * (chosen == e).sum() for e in range(4)])
        balance.append((frequency * probabilities.sum(0) / length).sum())
        z.append((logits.exp().sum(-1).log() ** 2).mean())
    losses = context.routings[0].losses
    torch.testing.assert_close(losses["balance"], sum(balance) / 2)
    torch.testing.assert_close(losses["z"], sum(z) / 2)


def test_balance_loss_of_balanced_router_is_one():
    layer = _layer(balance_loss=1.0)
    with torch.no_grad():
        layer.router.weight.zero_()
    context = _context()
    layer(_rows(), context)
    assert context.routings[0].losses["balance"].item() == pytest.approx(1.0)


@torch.no_grad()
def test_balance_bias_moves_against_the_load():
    layer, x = _layer(balance="bias", balance_bias_step=10.0), _rows()
    layer.adjust_bias(torch.tensor([9, 1, 1, 1]))
    assert layer.bias.tolist() == [-10.0, 10.0, 10.0, 10.0]
    context = _context()
    layer(x, context)
    assert context.routings[0].expert_counts[0] == 0


@torch.no_grad()
def test_expert_choice_equals_loop_over_rows_and_experts():
    layer, x = _layer(ExpertChoice), _rows()
    normed = _norm(layer, x)
    probabilities = (normed @ layer.router.weight.t()).softmax(-1)
    wanted = torch.zeros_like(x)
    for row in range(2):
        for e in range(4):
            for token in probabilities[row, :, e].topk(5).indices.tolist():  # 10 tokens, 2 of 4 experts
                wanted[row, token] += probabilities[row, token, e] * _expert(layer, e, normed[row, token])
    context = _context()
    torch.testing.assert_close(layer(x, context), wanted, atol=1e-5, rtol=1e-4)
    assert context.routings[0].expert_counts.tolist() == [10, 10, 10, 10]


@torch.no_grad()
def test_expert_choice_looks_ahead_only_in_training():
    layer, x = _layer(ExpertChoice), _rows(1)
    layer.train()
    context = _context()
    layer(x, context)
    layer.after_step(context.routings)  # sets the thresholds
    layer.eval()
    changed = x.clone()
    changed[:, 5:] = 10 * _rows(1, seed=7)[:, 5:]

    def moved(causal):
        return (layer(x, _context(causal=causal)) - layer(changed, _context(causal=causal)))[:, :5].abs().max().item()

    assert moved(causal=False) > 1e-3
    assert moved(causal=True) < 1e-5  # rounding: experts meet groups of another size


def test_token_choice_in_bfloat16_compiles_to_one_graph():
    layer, context, counter = _layer(), _context(), CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = compiled(_rows(), context)
        torch.testing.assert_close(got, layer(_rows(), _context()))
    assert counter.frame_count == 1


@pytest.mark.parametrize("seen", [slice(0, 40), slice(7, 8)])
def test_router_in_bfloat16_rounds_its_inputs_but_not_its_scores(seen):
    """Whole rows or one token, as in decoding: the float32 product of the bfloat16 values."""
    experts, depth = _layer(n_experts=64), LearnedRouter(D, 40, 0)
    x = _rows(2, 40)[:, seen]
    for weight, score in ((experts.router.weight, experts.router_logits), (depth.score.weight, depth.gate)):
        values, factors = x.bfloat16().double(), weight.detach().bfloat16().double()
        exact = (values @ factors.t()).squeeze(-1).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = score(x)
        torch.testing.assert_close(scores, exact, atol=1e-6, rtol=1e-6)
        assert not torch.equal(exact, exact.bfloat16().float())
        weights = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2))
        (gradient,) = torch.autograd.grad((scores * weights).sum(), [weight])
        wanted = weights.double().reshape(-1, len(weight)).t() @ values.flatten(0, 1)
        torch.testing.assert_close(gradient.double(), wanted, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("visited", [12, 7])
def test_dispatch_and_combine_pass_gradcheck(visited):
    torch.manual_seed(0)
    order = torch.randperm(12)
    flat = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, g: combine(dispatch(f, order, visited, 2) * 2, order, g), (flat, gates))
    by_hand = torch.zeros(6, 3, dtype=torch.float64)
    for choice in order[:visited].tolist():
        by_hand[choice // 2] += gates[choice // 2, choice % 2] * flat[choice // 2]
    torch.testing.assert_close(combine(dispatch(flat, order, visited, 2), order, gates), by_hand)
