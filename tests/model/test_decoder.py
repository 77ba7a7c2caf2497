"""The decoder: kernels against plain formulas, rotary positions, grouped queries, initialisation."""

import pytest
import torch
import torch.nn.functional as F

from bench.config.schema import MethodConfig, ModelConfig
from bench.methods import build_model
from bench.model import Attention, TokenContext
from bench.model import causal_attention as attention_module
from bench.model.attention import rotary_table
from bench.model.causal_attention import causal_attention
from bench.model.kernels import RMSNorm, rotate, split_rotated, swiglu

torch.set_num_threads(1)
SHAPE = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=16)


def _context(length, head_dim, start=0):
    rotary = rotary_table(start + length, head_dim, 10_000.0)
    return TokenContext(torch.arange(start, len(rotary))[None], rotary[None, start:])


def test_swiglu_equals_formula_and_passes_gradcheck():
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(swiglu(x), F.silu(x[:, :6]) * x[:, 6:])
    assert torch.autograd.gradcheck(swiglu, x)


def test_rms_norm_equals_formula_and_passes_gradcheck():
    norm = RMSNorm(6, eps=1e-5, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    plain = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), plain)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,)), (x, norm.weight)
    )
    with torch.no_grad():
        torch.testing.assert_close(norm(x), plain)


@pytest.mark.parametrize("scores", [1 << 20, 1])
@pytest.mark.parametrize("length", [1, 7, 64, 150])
def test_attention_in_blocks_equals_sdpa_forward_and_backward(length, scores, monkeypatch):
    """Rows of less than a block, of just one, and of several, all at once or one row after the other."""
    monkeypatch.setattr(attention_module, "_SCORES", scores)
    query, key, value = torch.randn(3, 3, length, 2, 8, dtype=torch.float64).requires_grad_().unbind(0)
    blocks = causal_attention(query, key, value)
    plain = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)), is_causal=True)
    assert type(blocks.grad_fn).__name__ == "_InBlocksBackward"
    torch.testing.assert_close(blocks, plain.transpose(1, 2))
    along = torch.randn_like(blocks)
    own, wanted = (
        torch.autograd.grad(y, (query, key, value), g) for y, g in ((blocks, along), (plain, along.transpose(1, 2)))
    )
    for gradient, reference in zip(own, wanted, strict=True):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize(("length", "kv_heads"), [(513, 2), (8, 1)])
def test_attention_of_long_rows_or_grouped_queries_uses_sdpa(length, kv_heads):
    query, key = torch.randn(1, length, 2, 8, requires_grad=True), torch.randn(1, length, kv_heads, 8)
    out = causal_attention(query, key, key)
    assert type(out.grad_fn).__name__ == "TransposeBackward0"
    with torch.no_grad():
        torch.testing.assert_close(out[:, :8], causal_attention(query[:, :8], key[:, :8], key[:, :8]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_in_both_forms_equals_formula(dtype):
    """float32 goes through complex numbers, other types through the real formula."""
    rotary = rotary_table(7, 8, 10_000.0)
    heads = torch.randn(2, 7, 3, 8, dtype=dtype)
    out = rotate(heads, rotary[None])
    for position in range(7):
        for pair in range(4):
            turned = torch.complex(heads[:, position, :, 2 * pair], heads[:, position, :, 2 * pair + 1])
            turned = turned * torch.complex(*rotary[position, 0, pair])
            torch.testing.assert_close(out[:, position, :, 2 * pair], turned.real.to(dtype), atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(out[:, position, :, 2 * pair + 1], turned.imag.to(dtype), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_split_rotation_equals_formula_and_its_gradient(dtype):
    """The one-pass gradient in float32 against autograd's own on the plain formula."""
    rotary = rotary_table(5, 8, 10_000.0)[None]
    qkv = torch.randn(2, 5, 4 + 2 * 2, 8, dtype=dtype, requires_grad=True)
    plain = qkv.detach().double().requires_grad_()
    query_key, value = plain.split((6, 2), dim=2)
    query, key = rotate(query_key, rotary).split((4, 2), dim=2)
    weights = [torch.randn(2, 5, heads, 8, dtype=torch.float64) for heads in (4, 2, 2)]
    wanted = sum((part * weight).sum() for part, weight in zip((query, key, value), weights, strict=True))
    wanted.backward()
    parts = split_rotated(qkv, rotary, 4, 2)
    for part, other in zip(parts, (query, key, value), strict=True):
        torch.testing.assert_close(part.double(), other, atol=1e-5, rtol=1e-5)
    sum((part * weight.to(dtype)).sum() for part, weight in zip(parts, weights, strict=True)).backward()
    torch.testing.assert_close(qkv.grad.double(), plain.grad, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_depends_only_on_distances():
    attention = Attention(SHAPE)
    x = torch.randn(1, 6, 32)
    torch.testing.assert_close(
        attention(x, _context(6, 8)), attention(x, _context(6, 8, start=9)), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_grouped_queries_equal_repeated_keys_and_values():
    shared = Attention(ModelConfig(n_layers=1, d_model=32, n_heads=4, n_kv_heads=2, context=8))
    full = Attention(ModelConfig(n_layers=1, d_model=32, n_heads=4, context=8))
    query, key, value = shared.qkv.weight.split((32, 16, 16))
    double = [part.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32) for part in (key, value)]
    full.qkv.weight.copy_(torch.cat([query, *double]))
    full.out.weight.copy_(shared.out.weight)
    x = torch.randn(2, 8, 32)
    torch.testing.assert_close(shared(x, _context(8, 8)), full(x, _context(8, 8)), atol=1e-5, rtol=1e-4)


def test_initialisation_depends_on_its_own_seed_only():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build_model(SHAPE, MethodConfig(name="dense"), 64, seed=1)
    assert torch.equal(torch.rand(1), expected)
    again, other = (build_model(SHAPE, MethodConfig(name="dense"), 64, seed=seed) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_parameter_count_equals_formula(tied):
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=40, context=16, tie_embeddings=tied)
    model = build_model(shape, MethodConfig(name="dense"), 64)
    layer = 32 + 32 * (32 + 16 + 16) + 32 * 32 + 32 + 3 * 32 * 40
    assert sum(p.numel() for p in model.parameters()) == 2 * layer + 32 + 64 * 32 * (1 if tied else 2)
    assert model.active_params() == 2 * layer + 32 + 64 * 32 * (1 if tied else 2)
