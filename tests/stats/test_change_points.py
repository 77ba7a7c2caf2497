"""Step changes: found where they are, and not in noise."""

import numpy as np
import pytest

from bench.stats.change_points import Step, find_steps


def noisy(levels, noise=0.01, seed=0):
    return np.concatenate([np.full(n, level) for n, level in levels]) + noise * np.random.default_rng(seed).normal(
        size=sum(n for n, _ in levels)
    )


def test_a_series_without_noise_steps_where_it_changes():
    assert find_steps([2.0] * 5 + [2.01] * 4 + [1.9] * 3) == [Step(5, 2.0, 2.01), Step(9, 2.01, 1.9)]


def test_the_last_point_of_a_constant_series_may_be_a_step_already():
    assert find_steps([2.0] * 5 + [2.1]) == [Step(5, 2.0, 2.1)]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 50, [1.0] * 10 + [5.0] + [1.0] * 10, [0.0, 0.0, 0.0]])
def test_nothing_steps_in_a_constant_series_or_at_one_outlier(values):
    assert find_steps(values) == []


@pytest.mark.parametrize("size", [20, 100, 400])
def test_noise_alone_steps_in_fewer_than_one_series_of_fifty(size):
    found = [bool(find_steps(noisy([(size, 1.0)], seed=seed))) for seed in range(150)]
    assert sum(found) <= 3


def test_a_step_of_three_standard_deviations_is_found_within_two_points():
    misses = 0
    for seed in range(50):
        steps = find_steps(noisy([(60, 1.0), (40, 1.03)], seed=seed))
        near = len(steps) == 1 and abs(steps[0].index - 60) <= 2 and abs(steps[0].after / steps[0].before - 1.03) < 0.01
        misses += not near
    assert misses <= 2


def test_outliers_in_noise_are_no_steps():
    values = noisy([(100, 1.0)])
    values[[20, 50, 80]] = (1.5, 0.4, 2.0)
    assert find_steps(values) == []


def test_steps_are_found_all_along_a_long_series():
    levels = [(700, 1.0), (800, 1.1), (900, 1.0), (1100, 0.9)]
    assert [step.index for step in find_steps(noisy(levels))] == pytest.approx([700, 1500, 2400], abs=3)
