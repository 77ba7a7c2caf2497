import numpy as np
import pytest
import torch

from bench.data import Batches
from bench.errors import UserError

TOKENS = np.arange(1003, dtype=np.uint16)  # each token is its own position


def epoch_of(batches, epoch):
    steps = range(epoch * batches.windows_per_epoch, (epoch + 1) * batches.windows_per_epoch)
    return [batches.at(step)[0][0].tolist() for step in steps]


def test_targets_are_inputs_shifted_by_one():
    inputs, targets = Batches(TOKENS, context=10, batch_size=4, seed=0).at(0)
    assert inputs.shape == targets.shape == (4, 10)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)


def test_order_depends_only_on_seed_and_step():
    one, same, other = (Batches(TOKENS, 10, 4, seed) for seed in (1, 1, 2))
    forward = [one.at(step)[0] for step in range(60)]
    backward = [same.at(step)[0] for step in reversed(range(60))][::-1]  # as if resumed at any step
    assert all(map(torch.equal, forward, backward))
    assert not torch.equal(torch.stack(forward), torch.stack([other.at(step)[0] for step in range(60)]))


def test_epoch_visits_each_window_once_without_overlap():
    batches = Batches(TOKENS, context=10, batch_size=1, seed=3)
    for epoch in range(20):
        tokens = sorted(sum(epoch_of(batches, epoch), []))
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        assert tokens[0] < 2 * 10 and len(tokens) > len(TOKENS) - 2 * 10


def test_epochs_differ_in_order_and_offset():
    batches = Batches(TOKENS, context=10, batch_size=1, seed=3)
    epochs = [epoch_of(batches, epoch) for epoch in range(8)]
    assert len({min(windows)[0] for windows in epochs}) > 3
    assert len({tuple(window[0] // 10 for window in windows) for windows in epochs}) == 8


def test_batch_continues_into_the_next_epoch():
    single, batches = Batches(TOKENS, 10, 1, seed=5), Batches(TOKENS, 10, 64, seed=5)
    singles = torch.cat([single.at(step)[0] for step in range(256)])
    assert torch.equal(singles, torch.cat([batches.at(step)[0] for step in range(4)]))


@pytest.mark.parametrize("length", [11, 12, 20, 21, 25])
def test_shortest_texts_use_every_offset(length):
    batches = Batches(TOKENS[:length], context=10, batch_size=1, seed=0)
    starts = {batches.at(step)[0][0, 0].item() for step in range(200)}
    assert max(starts) + 10 == length - 1 and min(starts) == 0


def test_context_longer_than_the_text_is_refused():
    with pytest.raises(
        UserError, match=r"model.context=1003 needs 1004 .* has 1003. Set model.context to at most 1002"
    ):
        Batches(TOKENS, context=1003, batch_size=1, seed=0)
