"""Splitting a batch into micro-batches changes nothing: gradients, thresholds, biases."""

import pytest
import torch

from bench.config.compose import configure
from bench.methods import build_model
from bench.train.step import Trainee

torch.set_num_threads(1)
SHAPE = ["model.n_layers=2", "model.d_model=16", "model.n_heads=2", "model.context=32", "train.batch_size=16"]
WORDS = {
    "dense": ["+method=dense"],
    "mod": ["+method=mod"],
    "mod, bce": ["+method=mod", "method.depth.causal=bce"],
    "mod, running threshold": ["+method=mod", "method.depth.causal=expert_threshold"],
    "mod, random": ["+method=mod_random"],
    "moe": ["+method=moe"],
    "moe, strong losses": ["+method=moe", "method.experts.balance_loss=1", "method.experts.z_loss=1"],
    "moe, biases": ["+method=moe", "method.experts.balance=bias"],
    "expert choice": ["+method=expert_choice"],
    "mode, staged": ["+method=mode"],
    "mode, staged, expert choice": ["+method=mode", "method.experts.routing=expert_choice"],
    "mode, integrated": ["+method=mode", "method.variant=integrated"],
    "shallow": ["+method=shallow"],
}


def _batch(seed):
    tokens = torch.randint(97, (16, 33), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _trainee(name, rows=None):
    words = WORDS[name] + [f"train.micro_batch_size={rows}"] * (rows is not None)
    config = configure([*words, *SHAPE])
    torch.manual_seed(0)
    return Trainee(build_model(config.model, config.method, 97, 0), config.train, 16, torch.device("cpu"))


def _gradients(trainee):
    losses, _ = trainee.accumulate(*_batch(0))
    gradients = [p.grad for p in trainee.model.parameters() if p.grad is not None]
    return torch.stack(losses).sum(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("name", WORDS)
def test_gradients_do_not_depend_on_micro_batches(name):
    loss, whole = _gradients(_trainee(name))
    for rows in (1, 2, 4):
        other, parts = _gradients(_trainee(name, rows))
        assert other.item() == pytest.approx(loss.item(), rel=1e-6)
        assert (parts - whole).norm() < 1e-5 * whole.norm()


def test_rows_weigh_the_same_in_micro_batches_of_unequal_size():
    trainee = _trainee("moe, strong losses")
    loss, whole = _gradients(trainee)
    trainee = _trainee("moe, strong losses")
    trainee.config.micro_batch_size = 7
    other, parts = _gradients(trainee)  # 7, 7 and 2 rows
    assert other.item() == pytest.approx(loss.item(), rel=1e-6)
    assert (parts - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("mod", "expert_threshold.value"),
        ("moe, biases", "feed_forward.bias"),
        ("expert choice", "feed_forward.threshold"),
        ("mode, staged, expert choice", "feed_forward.threshold"),
        ("mode, staged, expert choice", "expert_threshold.value"),
    ],
)
def test_running_state_does_not_depend_on_micro_batches(name, state):
    """The learning rate is 0, so that each step sees the same weights."""

    def after_three_steps(rows):
        trainee = _trainee(name, rows)
        for number in range(3):
            trainee.step(*_batch(number), lr=0.0)
        return {key: value for key, value in trainee.model.named_buffers() if key.endswith(state)}

    whole = after_three_steps(None)
    assert whole and all(value.abs().max() > 0 for value in whole.values())
    for rows in (1, 2, 4):
        for key, value in after_three_steps(rows).items():
            torch.testing.assert_close(value, whole[key], atol=1e-6, rtol=1e-5)
