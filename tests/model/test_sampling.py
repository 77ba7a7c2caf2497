"""Choosing tokens and continuing texts."""

import torch

from bench.config.schema import MethodConfig, ModelConfig
from bench.methods import build_model
from bench.model.sampling import Continuations, choose, read_together

torch.set_num_threads(1)
SHAPE = ModelConfig(n_layers=2, d_model=32, n_heads=4, context=16, d_ff=48)


def _model():
    model = build_model(SHAPE, MethodConfig("dense"), 40).eval()
    for parameter in model.parameters():
        parameter.data.mul_(0.9 if parameter.dim() > 1 else 5.0)
    return model


def _counts(logits, draws=4000, **settings):
    generator = torch.Generator().manual_seed(0)
    drawn = [choose(logits, generator=generator, **settings) for _ in range(draws)]
    return torch.tensor(drawn).bincount(minlength=len(logits)) / draws


def test_choose_follows_the_distribution():
    logits = torch.tensor([0.5, 0.1, 0.4]).log()
    torch.testing.assert_close(_counts(logits, temperature=1.0, top_p=1.0), logits.exp(), atol=0.03, rtol=0)
    sharper = (logits / 0.5).softmax(-1)
    torch.testing.assert_close(_counts(logits, temperature=0.5, top_p=1.0), sharper, atol=0.03, rtol=0)
    assert choose(logits, 0.0, 1.0) == 0


def test_choose_at_smallest_temperature_or_nucleus_is_greedy():
    logits = torch.tensor([0.1, 0.5, 0.4]).log()
    for temperature in (1e-8, 1e-45, 5e-324):
        assert choose(logits, temperature, 1.0) == 1
    assert choose(logits, 1.0, 0.0) == 1


def test_nucleus_is_the_fewest_tokens_reaching_top_p():
    logits = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()
    assert _counts(logits, temperature=1.0, top_p=0.4).tolist() == [0, 1, 0, 0]
    found = _counts(logits, temperature=1.0, top_p=0.7)
    assert found[0] == found[3] == 0
    torch.testing.assert_close(found[1:3], torch.tensor([0.625, 0.375]), atol=0.03, rtol=0)


@torch.no_grad()
def test_common_prefix_is_read_once_and_logits_are_equal():
    model, read = _model(), []
    rows = [[1, 2, 3, 4], [1, 2, 3], [1, 2, 9, 9, 9]]
    extend = model.extend
    model.extend = lambda tokens, *rest: read.append(len(tokens)) or extend(tokens, *rest)
    cache = read_together(model, rows)
    assert read == [2, 2 + 1 + 3] and cache.read == [4, 3, 5]
    logits = extend(torch.tensor([7, 7, 7]), [1, 1, 1], cache)
    for own, row in zip(logits, rows, strict=True):
        alone = model.causal_logits(torch.tensor([[*row, 7]]), torch.tensor([len(row) + 1]))[0, -1]
        torch.testing.assert_close(own, alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_continuations_go_on_past_the_end_of_others_and_the_context():
    model = _model()
    texts = Continuations(model, [[1, 2, 3], [4], [5, 6]])
    alone = Continuations(model, [[5, 6]])
    for step in range(2 * SHAPE.context):
        torch.testing.assert_close(texts.logits[-1], alone.logits[-1], atol=1e-4, rtol=0)
        if step == 4:
            texts.keep([0, 2])
        token = int(alone.logits[-1].argmax())
        texts.go_on([token] * len(texts.texts))
        alone.go_on([token])
        assert max(texts.cache.read) <= SHAPE.context


@torch.no_grad()
def test_continuations_past_the_context_keep_its_second_half():
    """One token after the other, however long: each step sees all tokens since the last time half was forgotten."""
    model, told = _model(), [3]
    texts = Continuations(model, [told])
    start = 0
    for token in torch.randint(40, (3 * SHAPE.context,), generator=torch.Generator().manual_seed(1)).tolist():
        told = [*told, token]
        texts.go_on([token])
        if len(told) - start > SHAPE.context:
            start = len(told) - SHAPE.context // 2
        alone = model.causal_logits(torch.tensor([told[start:]]), torch.tensor([len(told) - start]))[0, -1]
        torch.testing.assert_close(texts.logits[0], alone, atol=1e-4, rtol=0)
        assert texts.texts[0] == told[start:]
