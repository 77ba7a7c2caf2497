"""What validation documents add to the variance of a difference, against independent computations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.stats.paired import FEWEST_DEGREES, document_interval, document_source, effective_degrees, ratio_source


def frame(nats, tokens=None, **columns):
    tokens = np.full(len(nats), 100) if tokens is None else tokens
    return pd.DataFrame({"document": [f"d{n:04}" for n in range(len(nats))], "tokens": tokens, "nats": nats} | columns)


def skewed(generator, documents):
    """Lengths such as those of real documentation: 24 documents act like 8."""
    return np.exp(generator.normal(7.5, 1.2, documents))


def test_document_interval_is_of_the_difference_of_token_weighted_losses(document_frames):
    found = document_interval(*document_frames)
    own, dense = document_frames[0][0][0], document_frames[1][0][0]
    assert found.value == pytest.approx((own["nats"].sum() - dense["nats"].sum()) / own["tokens"].sum())
    assert (found.n, found.unit) == (6, "documents") and found.high < 0
    assert (found.p, found.stderr, found.minimum_detectable) == (None,) * 3  # it can neither be tested nor pooled


def test_ratio_source_is_the_jackknife_about_the_estimate():
    generator = np.random.default_rng(0)
    sizes, totals = skewed(generator, 12), generator.normal(0, 1, 12)
    value = totals.sum() / sizes.sum()
    without = [np.delete(totals, n).sum() / np.delete(sizes, n).sum() for n in range(12)]
    assert ratio_source(totals, sizes).variance == pytest.approx(np.sum((np.array(without) - value) ** 2))


def test_document_source_is_near_the_bootstraps():
    generator = np.random.default_rng(0)
    tokens = generator.integers(500, 3000, 200)
    dense = tokens * generator.normal(2.0, 0.1, 200)
    mod = dense + tokens * generator.normal(-0.01, 0.03, 200)
    chosen = generator.integers(0, 200, (4000, 200))
    bootstrap = (mod - dense)[chosen].sum(axis=1) / tokens[chosen].sum(axis=1)
    found = document_source([[frame(mod, tokens)]], [[frame(dense, tokens)]])
    assert math.sqrt(found.variance) == pytest.approx(bootstrap.std(), rel=0.06)


def test_effective_degrees_count_equal_documents_and_see_through_skew():
    assert effective_degrees(np.full(24, 7)) == 23
    assert effective_degrees(np.array([1e6, 1.0, 1.0])) == pytest.approx(0, abs=1e-5)
    lengths = [skewed(np.random.default_rng(seed), 24) for seed in range(200)]
    assert 6 < np.median([effective_degrees(each) for each in lengths]) < 10


def test_ratio_source_covers_the_truth_with_skewed_lengths():
    """The ratio estimator with one degree less than documents covers 88 % here."""
    generator, held, equal, draws = np.random.default_rng(0), 0, 0, 4000
    for _ in range(draws):
        tokens = skewed(generator, 40)
        totals = tokens * generator.normal(0, 0.03, 40)
        value, found = totals.sum() / tokens.sum(), ratio_source(totals, tokens)
        held += abs(value) <= stats.t.ppf(0.975, found.degrees) * math.sqrt(found.variance)
        plain = math.sqrt(40 / 39 * np.sum((totals - value * tokens) ** 2)) / tokens.sum()
        equal += abs(value) <= stats.t.ppf(0.975, 39) * plain
    assert 0.94 <= held / draws <= 0.97
    assert equal / draws < 0.91


def test_document_interval_of_few_effective_documents_is_open():
    generator = np.random.default_rng(0)
    tokens = np.array([50_000.0, *generator.uniform(300, 900, 30)])
    nats = tokens * generator.normal(0, 0.03, 31)
    assert effective_degrees(tokens) < FEWEST_DEGREES
    found = document_interval([[frame(nats, tokens)]], [[frame(np.zeros(31), tokens)]])
    assert (found.low, found.high, found.n) == (-math.inf, math.inf, 31)
    one = document_interval([[frame([3.0])]], [[frame([2.0])]])
    assert (one.value, one.low, one.n) == (0.01, -math.inf, 1)
    assert document_source([[frame([3.0])]], [[frame([2.0])]]) is None


def test_document_source_of_clusters_is_that_of_their_sums():
    generator = np.random.default_rng(0)
    books, tokens = np.repeat(list("abcdef"), 4), generator.integers(100, 200, 24)
    nats = tokens * (np.repeat(generator.normal(0, 0.1, 6), 4) + generator.normal(0, 0.01, 24))
    own, dense = frame(nats, tokens, cluster=books), frame(np.zeros(24), tokens, cluster=books)
    found = document_source([[own]], [[dense]])
    sums = own.groupby("cluster")[["nats", "tokens"]].sum()
    assert found.variance == pytest.approx(ratio_source(*sums.to_numpy(dtype=float).T).variance)
    loose = document_source([[own.drop(columns="cluster")]], [[dense.drop(columns="cluster")]])
    assert found.variance > 2 * loose.variance and found.degrees < loose.degrees / 3


def test_document_source_averages_over_seeds_in_any_order_of_rows():
    generator = np.random.default_rng(0)
    first, second, dense = (generator.normal(100, 5, 9) for _ in range(3))
    both = document_source([[frame(first), frame(second).sample(frac=1, random_state=0)]], [[frame(dense)]])
    assert both == document_source([[frame((first + second) / 2)]], [[frame(dense)]])


def test_documents_that_differ_or_are_missing_give_nothing(document_frames):
    own, dense = document_frames
    renamed = dense[0][0].assign(document=list("abcdex"))
    for other in (renamed, renamed.head(5), dense[0][0].assign(tokens=7), None):
        assert document_source(own, [[other]]) is None
        assert document_interval(own, [[other]]) is None
