"""Which tokens experts process, and when routing settles: statistics over validation documents, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.isoflop.run.router_use import expert_use
from bench.isoflop.run.token_study import Choices, _same_experts, _same_tokens

DOCUMENTS, TOKENS, KINDS, EXPERTS = 8, 100, 3, 4


def text(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Generator, the document of each token, and the kind of each."""
    rng = np.random.default_rng(seed)
    return rng, np.repeat(np.arange(DOCUMENTS), TOKENS), rng.integers(0, KINDS, DOCUMENTS * TOKENS)


def test_expert_use_information_is_1_of_kinds_and_near_0_of_noise():
    rng, documents, kinds = text(0)
    shape = (DOCUMENTS, TOKENS, 1)
    blind = rng.integers(0, EXPERTS, shape)
    first, second = expert_use({0: kinds.reshape(shape), 3: blind}, kinds, KINDS, documents)
    assert (first.layer, second.layer) == (0, 3) and first.information == pytest.approx(1)
    assert first.information_low is None  # for all documents say the same
    assert np.array(first.share_by_kind)[:, :KINDS] == pytest.approx(np.eye(KINDS))
    together = np.histogram2d(blind.flatten(), kinds, bins=(EXPERTS, KINDS))[0]
    of_expert, of_kind, of_both = (
        stats.entropy(each) for each in (together.sum(axis=1), together.sum(axis=0), together.flatten())
    )
    mutual = (of_expert + of_kind - of_both) / of_kind
    (few,) = expert_use({3: blind[:4]}, kinds[: 4 * TOKENS], KINDS, documents[: 4 * TOKENS])
    (same,) = expert_use({3: blind}, kinds, KINDS, documents % 4)
    assert same.information == pytest.approx(mutual) and same.information_low is None and few.information_low is None
    assert second.information_low == 0 <= second.information < mutual < 0.02  # few tokens tell something by luck


def test_expert_use_information_is_corrected_for_bias():
    """Over many texts, the mean of few tokens is what half-informed experts tell given many tokens."""
    told, plain = [], []
    for seed in range(200):
        rng, documents, kinds = text(seed)
        chosen = np.where(rng.random(len(kinds)) < 0.3, kinds, rng.integers(0, KINDS, len(kinds)))
        shape = (DOCUMENTS, TOKENS, 1)
        told.append(expert_use({0: chosen.reshape(shape)}, kinds, KINDS, documents)[0].information)
        plain.append(expert_use({0: chosen.reshape(shape)}, kinds, KINDS, documents % 4)[0].information)
    same, other = (0.3 + 0.7 / 3) / 3, (0.7 / 3) / 3
    truth = (3 * same * np.log(9 * same) + 6 * other * np.log(9 * other)) / np.log(3)
    assert 3 * abs(np.mean(told) - truth) < np.mean(plain) - truth


def test_expert_use_information_has_an_interval_over_documents():
    """It is wide where experts follow the kind in some documents and not in others."""
    rng, documents, kinds = text(1)
    noise, widths = rng.integers(0, KINDS, len(kinds)), []
    for follows in (rng.random(len(kinds)) < 0.5, documents % 2 == 0):
        chosen = np.where(follows, kinds, noise).reshape(DOCUMENTS, TOKENS, 1)
        (use,) = expert_use({0: chosen}, kinds, KINDS, documents)
        assert 0 <= use.information_low < use.information < use.information_high <= 1
        widths.append(use.information_high - use.information_low)
    assert widths[1] > 3 * widths[0]


def test_expert_use_counts_pairs_of_experts():
    documents, kinds = np.zeros(4, dtype=int), np.array([0, 0, 1, 1])
    chosen = np.array([[[0, 1], [0, 1], [0, 2], [1, 2]]])
    (use,) = expert_use({1: chosen}, kinds, 2, documents)
    assert np.array(use.together) == pytest.approx(np.array([[0, 2 / 3, 1 / 3], [2 / 3, 0, 1 / 3], [1 / 2, 1 / 2, 0]]))


def test_same_tokens_is_a_mean_share_with_a_t_interval():
    """Documents with equally many processed tokens: then it is the interval of a mean of their shares."""
    rng, documents, _ = text(2)
    final = np.zeros((DOCUMENTS, TOKENS), dtype=bool)
    final[:, :20] = True
    then = final & (rng.random(final.shape) < 0.6)
    then[:, 50:] = True  # processed then and not at the end: no part of the share
    found = _same_tokens(Choices({1: then}, {}), Choices({1: final}, {}), documents)
    shares = (then & final).sum(axis=1) / 20
    stderr = stats.sem(shares) * np.sqrt(DOCUMENTS / (DOCUMENTS - 1))  # each document left out moves the mean this much
    low, high = stats.t.interval(0.95, DOCUMENTS - 1, shares.mean(), stderr)
    assert (found.value, found.low, found.high) == pytest.approx((shares.mean(), low, high))
    never = np.zeros_like(final)
    two = _same_tokens(Choices({1: then, 3: then, 5: then}, {}), Choices({1: final, 3: then, 5: never}, {}), documents)
    assert two.value == pytest.approx((shares.mean() + 1) / 2)  # a layer that processes nothing has no share
    assert _same_tokens(Choices({}, {}), Choices({}, {}), documents) is None


def test_same_experts_ignores_the_order_of_choice():
    documents = np.repeat(np.arange(5), 2)
    final = np.tile([[0, 1], [2, 3]], (5, 1, 1))
    then = np.tile([[1, 0], [3, 1]], (5, 1, 1))
    found = _same_experts(Choices({}, {0: then}), Choices({}, {0: final}), documents)
    assert found.value == pytest.approx(0.75) and found.low is None  # all documents say the same
