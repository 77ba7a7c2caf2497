"""Paired differences, their intervals and minimum detectable effects, against independent computations."""

import numpy as np
import pandas as pd
import pytest
from report_records import DOCUMENT_TOKENS
from scipy import stats

from bench.stats.paired import document_stderr, minimum_detectable_effect, paired_documents, paired_seeds

DENSE_NATS = [210.0, 490.0, 810.0, 300.0, 600.0]
MOD_NATS = [205.0, 470.0, 790.0, 296.0, 580.0]


def documents(nats):
    return pd.DataFrame({"document": list("abcde"), "tokens": DOCUMENT_TOKENS, "nats": nats})


def test_paired_seeds_interval_is_scipys_paired_t_interval():
    mod, dense = [1.95, 2.07, 1.91], [2.00, 2.10, 1.95]
    found = paired_seeds(mod, dense)
    expected = stats.ttest_rel(mod, dense).confidence_interval(0.95)
    assert found.value == pytest.approx(-0.04)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.n, found.unit) == (3, "seeds")


def test_paired_seeds_of_one_pair_have_no_interval():
    found = paired_seeds([1.9], [2.0])
    assert found.low is None and found.minimum_detectable is None and not found.significant


def test_paired_documents_is_the_difference_of_token_weighted_losses():
    found = paired_documents(documents(MOD_NATS), documents(DENSE_NATS))
    assert found.value == pytest.approx((sum(MOD_NATS) - sum(DENSE_NATS)) / sum(DOCUMENT_TOKENS))
    assert (found.n, found.unit) == (5, "documents")


def test_paired_documents_stderr_is_near_the_bootstraps():
    generator = np.random.default_rng(0)
    tokens = generator.integers(500, 3000, 200)
    dense = tokens * generator.normal(2.0, 0.1, 200)
    mod = dense + tokens * generator.normal(-0.01, 0.03, 200)
    frames = [pd.DataFrame({"document": range(200), "tokens": tokens, "nats": nats}) for nats in (mod, dense)]
    found = paired_documents(*frames)
    chosen = generator.integers(0, 200, (4000, 200))
    bootstrap = (mod - dense)[chosen].sum(axis=1) / tokens[chosen].sum(axis=1)
    half = stats.t.ppf(0.975, 199) * bootstrap.std()
    assert found.high - found.value == pytest.approx(half, rel=0.06)
    assert document_stderr(*frames)[0] == pytest.approx(bootstrap.std(), rel=0.06)


def test_paired_documents_of_different_documents_are_none():
    other = documents(DENSE_NATS).assign(document=list("abcdx"))
    assert paired_documents(documents(MOD_NATS), other) is None
    assert paired_documents(documents(MOD_NATS), documents(DENSE_NATS).head(4)) is None
    assert document_stderr(documents(MOD_NATS), other) == (0.0, 0)


@pytest.mark.parametrize("pairs", [2, 3, 10, 34])
def test_minimum_detectable_effect_is_found_with_80_percent_power(pairs):
    shift = minimum_detectable_effect(1.0, pairs - 1) / np.sqrt(pairs)  # stderr 1: a standard deviation of sqrt(n)
    generator = np.random.default_rng(pairs)
    samples = generator.normal(shift, 1.0, (40_000, pairs)) * np.sqrt(pairs)
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)
