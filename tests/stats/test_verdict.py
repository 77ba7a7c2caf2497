"""Verdicts: superiority, equivalence and a family of tests, against independent computations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.stats.difference import Source, estimate, seed_difference
from bench.stats.interval import Interval
from bench.stats.paired import document_interval
from bench.stats.verdict import Verdict, decide, decide_all, equivalence_p, holm


def difference(value, stderr=0.01, degrees=10):
    return estimate(value, [Source(stderr**2, degrees)], unit="seeds")


@pytest.mark.parametrize(
    ("value", "stderr", "verdict"),
    [
        (-0.10, 0.01, Verdict.BETTER),
        (+0.10, 0.01, Verdict.WORSE),
        (+0.00, 0.01, Verdict.EQUIVALENT),
        (-0.01, 0.002, Verdict.EQUIVALENT),  # significant, and shown to be smaller than matters
        (-0.02, 0.008, Verdict.BETTER),  # significant, perhaps larger than matters
        (-0.02, 0.02, Verdict.INCONCLUSIVE),
        (+0.00, 0.02, Verdict.INCONCLUSIVE),  # no difference found is not equivalence
    ],
)
def test_decide_by_interval_and_smallest_effect(value, stderr, verdict):
    assert decide(difference(value, stderr), 0.02) == verdict


def test_decide_agrees_with_the_two_intervals():
    generator = np.random.default_rng(0)
    for value, stderr in generator.uniform((-0.05, 0.001), (0.05, 0.03), (300, 2)):
        found, wide = difference(value, stderr, 4), Interval.from_stderr(value, stderr, 4, 0.90)
        expected = Verdict.INCONCLUSIVE
        if found.below(0.0) is not None:
            expected = Verdict.BETTER if value < 0 else Verdict.WORSE
        if wide.low > -0.02 and wide.high < 0.02:
            expected = Verdict.EQUIVALENT
        assert decide(found, 0.02) == expected


def test_equivalence_p_is_the_larger_of_two_one_sided_tests():
    generator = np.random.default_rng(1)
    own, dense = generator.normal(2.0, 0.01, 5), generator.normal(2.003, 0.02, 4)
    found = seed_difference([list(own)], [list(dense)])
    sides = [
        stats.ttest_ind(own + shift, dense, equal_var=False, alternative=alternative).pvalue
        for shift, alternative in ((0.02, "greater"), (-0.02, "less"))
    ]
    assert equivalence_p(found, 0.02) == pytest.approx(max(sides))


def test_decide_without_seeds_is_inconclusive(document_frames):
    assert decide(Interval(-5.0, n=1, unit="seeds"), 0.02) == Verdict.INCONCLUSIVE
    over_documents = document_interval(*document_frames)
    assert over_documents.high < 0
    assert decide(over_documents, 1e-6) == Verdict.INCONCLUSIVE
    assert decide(replace(difference(-0.1), unit="documents"), 0.02) == Verdict.INCONCLUSIVE


def test_decide_all_needs_more_of_each_method_of_a_family():
    borderline = difference(-0.0235)  # p = 0.041 alone
    assert decide(borderline, 0.005) == Verdict.BETTER
    assert decide_all([borderline] * 2, [0.005] * 2) == [Verdict.INCONCLUSIVE] * 2
    assert decide_all([borderline, difference(-0.2)], [0.005] * 2) == [Verdict.BETTER] * 2  # Holm, not Bonferroni
    untested = Interval(-0.3, n=1, unit="seeds")  # one seed is no test and costs the others nothing
    assert decide_all([untested, borderline], [0.005] * 2) == [Verdict.INCONCLUSIVE, Verdict.BETTER]


def test_decide_of_identical_runs_is_equivalent():
    assert decide(seed_difference([[1.5, 1.5]], [[1.5, 1.5]]), 0.01) == Verdict.EQUIVALENT
    assert decide(seed_difference([[1.4, 1.4]], [[1.5, 1.5]]), 0.01) == Verdict.BETTER


def test_holm_is_the_published_procedure():
    # Holm 1979, Scand. J. Statist. 6, 65-70: the smallest p times k, the next times k - 1, never falling.
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
