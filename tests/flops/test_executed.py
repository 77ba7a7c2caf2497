"""Executed FLOPs of a training step, against arithmetic on what each kernel computes."""

import pytest
import torch

from bench.config.schema import ExpertsConfig, MethodConfig, ModelConfig, TrainConfig
from bench.flops.match import count
from bench.methods import build_model
from bench.train.step import Trainee

torch.set_num_threads(1)
DENSE = MethodConfig(name="dense")
WIDTH, LAYERS = 32, 2


def _trainee(method, context, kv=None, **train):
    shape = ModelConfig(n_layers=LAYERS, d_model=WIDTH, n_heads=4, n_kv_heads=kv, context=context)
    return Trainee(build_model(shape, method, 64), TrainConfig(1.0, **train), WIDTH, torch.device("cpu"))


def _executed(trainee):
    tokens = torch.randint(64, (3, trainee.model.context), generator=torch.Generator().manual_seed(0))
    return trainee.executed_flops(tokens, tokens)


def _scores(products, pairs):
    """FLOPs of attention's products over `pairs` of a row, in all layers."""
    return LAYERS * products * 2 * WIDTH * pairs


def test_blocks_of_causal_attention_are_counted_as_computed():
    trainee = _trainee(DENSE, 160)
    computed = 64 * 64 + 64 * 128 + 32 * 160  # blocks of 64 queries see the keys up to their own end
    skipped = _scores(6, 160 * 160 - computed) / 160
    assert _executed(trainee) == pytest.approx(count(trainee.model, 160).train - skipped)


def test_one_block_executes_the_model_flops():
    trainee = _trainee(DENSE, 64, micro_batch_size=1)
    assert _executed(trainee) == pytest.approx(count(trainee.model, 64).train)


def test_fused_kernel_skips_later_keys_and_repeats_the_scores():
    trainee = _trainee(DENSE, 160, kv=2)  # grouped queries take the fused kernel
    model_flops, pairs = count(trainee.model, 160), 160 * 161 / 2
    wanted = model_flops.train - _scores(6, 160 * 160) / 160 + _scores(2 + 5, pairs) / 160
    assert _executed(trainee) == pytest.approx(wanted)


def test_null_experts_are_counted_as_routed():
    method = MethodConfig(name="mode", experts=ExpertsConfig(n_experts=4, n_noop=4))
    trainee = _trainee(method, 32)
    tokens = torch.randint(64, (3, 32), generator=torch.Generator().manual_seed(0))
    report = trainee.step(tokens, tokens, 0.0)
    assert report.extra_flops != 0
    planned = count(trainee.model, 32).train
    assert _executed(trainee) == pytest.approx(planned + report.extra_flops / 96, rel=1e-6)


def test_counting_leaves_the_trainee_as_it_is():
    trainee = _trainee(DENSE, 32)
    before = torch.get_rng_state()
    _executed(trainee)
    assert torch.equal(before, torch.get_rng_state()) and trainee.forward is trainee.model
    assert all(parameter.grad is None for parameter in trainee.model.parameters())
