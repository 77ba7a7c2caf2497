"""Pooled estimates against a published example, closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from bench.stats.difference import Source
from bench.stats.interval import Interval
from bench.stats.pooling import pool_budgets, pool_studies

# Nine laboratories (Kacker 2004, Metrologia 41, 132-136, table 1): tau by Paule and Mandel is 0.8399.
KACKER = [61.0, 61.4, 62.21, 62.3, 62.34, 62.6, 62.7, 62.84, 65.9]
KACKER_VARIANCES = [0.2025, 1.2100, 0.0900, 0.2025, 0.3844, 0.5625, 0.0676, 0.0225, 1.8225]


def intervals(values, variances, degrees=8):
    pairs = zip(values, variances, strict=True)
    return [Interval.from_stderr(value, variance**0.5, degrees) for value, variance in pairs]


def test_pool_studies_of_kackers_example_is_the_published_mean_and_tau():
    found = pool_studies(intervals(KACKER, KACKER_VARIANCES))
    assert found.tau == pytest.approx(0.8399, abs=5e-5)
    # R metafor 2.4, rma(method="PM"): mean, standard error, Cochran's Q and its p
    assert found.effect.value == pytest.approx(62.4076199113286)
    assert found.effect.stderr == pytest.approx(0.338030602684471)
    assert (found.q, found.p) == (pytest.approx(24.801897741835), pytest.approx(0.00167935146372742))
    half = stats.t.ppf(0.975, 8) * 0.338030602684471  # at Paule and Mandel's tau, Hartung and Knapp's factor is 1
    assert (found.effect.low, found.effect.high) == pytest.approx((62.40762 - half, 62.40762 + half))
    assert (found.effect.n, found.effect.unit) == (9, "studies")


def test_pool_studies_that_agree_are_not_narrower_than_their_common_effect():
    found = pool_studies(intervals([1.0, 1.01, 0.99], [0.04, 0.04, 0.04]))
    assert found.tau == 0.0 and found.p > 0.9
    assert (found.effect.stderr, found.effect.degrees) == (pytest.approx((0.04 / 3) ** 0.5), pytest.approx(24))


def test_pool_studies_of_one_study_is_that_study():
    (study,) = intervals([1.0], [0.04])
    assert pool_studies([study]).effect == study and pool_studies([study]).q is None


def test_pool_studies_interval_has_nominal_coverage():
    generator, held, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        variances = generator.uniform(0.5, 2.0, 4)
        found = pool_studies(intervals(generator.normal(0, np.sqrt(variances + 1.0)), variances))
        held += found.effect.low <= 0 <= found.effect.high
    assert 0.92 * draws <= held <= 0.98 * draws


def test_pool_budgets_is_the_mean_of_independent_estimates():
    found = pool_budgets(intervals([1.0, 2.0], [0.01, 0.04], 6))
    assert found.value == pytest.approx(1.5)
    assert found.stderr == pytest.approx((0.01 + 0.04) ** 0.5 / 2)
    assert found.degrees == pytest.approx(0.05**2 / ((0.01**2 + 0.04**2) / 6))
    assert pool_budgets(intervals([1.0], [0.01], 6)).high == pytest.approx(intervals([1.0], [0.01], 6)[0].high)


def test_pool_budgets_does_not_average_out_shared_sources():
    budgets = intervals([1.0, 1.0, 1.0, 1.0], [0.01] * 4)
    alone, shared = pool_budgets(budgets), pool_budgets(budgets, Source(0.5, 20))
    assert shared.stderr**2 == pytest.approx(alone.stderr**2 + 0.5)


@pytest.mark.parametrize("deviations", [(1, 1, 1), (1, 2, 4), (1, 1, 1, 1, 1)])
def test_pool_budgets_interval_has_nominal_coverage(deviations):
    """Three budgets, three seeds of each method."""
    generator, held, draws = np.random.default_rng(1), 0, 500
    for _ in range(draws):
        budgets = []
        for deviation in deviations:
            sample = generator.normal(0, deviation, (2, 3))
            stderr = float(np.sqrt(sample.var(ddof=1, axis=1).sum() / 3))
            budgets.append(Interval.from_stderr(float(sample[0].mean() - sample[1].mean()), stderr, 4))
        found = pool_budgets(budgets)
        held += found.low <= 0 <= found.high
    assert 0.92 * draws <= held <= 0.98 * draws


@pytest.mark.parametrize("broken", [Interval(1.0), Interval(1.0, 0.0, 2.0)])
def test_pool_needs_standard_errors(broken):
    for pool in (pool_budgets, pool_studies):
        with pytest.raises(ValueError, match="standard error"):
            pool([*intervals([1.0], [0.04]), broken])
