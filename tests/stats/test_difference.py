"""Differences over seeds, with further sources of variance, against independent computations."""

import math

import numpy as np
import pytest
from scipy import stats

from bench.stats.difference import Source, estimate, minimum_detectable_effect, of_mean, satterthwaite, seed_difference

MOD, DENSE = [1.95, 2.07, 1.91], [2.00, 2.10, 1.95, 1.99]


def test_seed_difference_is_scipys_welch_test():
    found = seed_difference([MOD], [DENSE])
    welch = stats.ttest_ind(MOD, DENSE, equal_var=False)
    expected = welch.confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(MOD) - np.mean(DENSE))
    assert (found.low, found.high, found.p) == pytest.approx((expected.low, expected.high, welch.pvalue))
    assert (found.degrees, found.n, found.unit) == (pytest.approx(welch.df), 3, "seeds")


def test_seed_difference_of_a_sum_adds_every_variance():
    found = seed_difference([MOD], [DENSE, [0.1, 0.2]])
    assert found.value == pytest.approx(np.mean(MOD) - np.mean(DENSE) - 0.15)
    assert found.stderr**2 == pytest.approx(sum(np.var(own, ddof=1) / len(own) for own in (MOD, DENSE, [0.1, 0.2])))


@pytest.mark.parametrize(("own", "dense"), [([1.9], [2.0]), ([1.9], DENSE), (MOD, [2.0])])
def test_seed_difference_of_one_seed_has_no_interval(own, dense):
    found = seed_difference([own], [dense], Source(1e-8, 100))
    assert found.value == pytest.approx(np.mean(own) - np.mean(dense))
    assert (found.low, found.high, found.stderr, found.p, found.minimum_detectable) == (None,) * 5
    assert found.n == 1


def test_seed_difference_widens_by_known_sources():
    plain, wider = seed_difference([MOD], [DENSE]), seed_difference([MOD], [DENSE], Source(0.01), None)
    assert wider.stderr**2 == pytest.approx(plain.stderr**2 + 0.01)
    assert wider.degrees > plain.degrees  # a known variance adds no uncertainty about the variance


def test_satterthwaite_of_equal_sources_adds_their_degrees():
    assert satterthwaite([Source(2.0, 4)] * 3).degrees == pytest.approx(12)
    assert satterthwaite([Source(2.0), Source(1.0)]) == Source(3.0, math.inf)
    assert satterthwaite([of_mean(MOD), Source(0.0, 1)]).degrees == pytest.approx(2)


def test_estimate_of_a_known_variance_is_normal():
    found = estimate(0.3, [Source(0.04)], unit="studies")
    assert (found.low, found.high) == pytest.approx((0.3 - 1.959964 * 0.2, 0.3 + 1.959964 * 0.2))
    assert found.minimum_detectable == pytest.approx(0.2 * (1.959964 + 0.841621), rel=1e-3)  # z_0.975 + z_0.80


@pytest.mark.parametrize("pairs", [2, 3, 10, 34])
def test_minimum_detectable_effect_is_found_with_80_percent_power(pairs):
    shift = minimum_detectable_effect(1.0, pairs - 1) / np.sqrt(pairs)  # stderr 1: a standard deviation of sqrt(n)
    generator = np.random.default_rng(pairs)
    samples = generator.normal(shift, 1.0, (40_000, pairs)) * np.sqrt(pairs)
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)
