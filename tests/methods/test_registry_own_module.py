"""A method with a module of its own: its layers are built by it, and nothing else has to know."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

from bench.config.schema import MethodConfig, ModelConfig
from bench.methods import build_model
from bench.model import Attention, Residual


def test_a_module_named_like_the_method_builds_its_layers(monkeypatch):
    own = ModuleType("bench.methods.attention_only")
    own.__spec__ = ModuleSpec("bench.methods.attention_only", None)
    own.build_layers = lambda model, method: [Residual(Attention(model)) for _ in range(method.options["blocks"])]
    monkeypatch.setitem(sys.modules, "bench.methods.attention_only", own)
    shape = ModelConfig(n_layers=2, d_model=16, n_heads=2, context=8)
    model = build_model(shape, MethodConfig(name="attention_only", options={"blocks": 3}), vocab_size=11)
    assert len(model.layers) == 3
    assert set(model.flops(8)) == {"attention projections", "attention scores", "lm head"}
    logits, routings = model(torch.zeros(1, 8, dtype=torch.int64))
    assert logits.shape == (1, 8, 11)
    assert routings == []
