"""The search by quadratic surfaces: it asks for a design, moves to the optimum, and ignores what it did not ask for."""

import itertools

import numpy as np
import pytest

from bench.stats.response_surface import search

SIZES = (7, 5, 6)


def _run(loss, start=(2, 2, 3), most=200):
    losses = {}
    while found := search(losses, start, SIZES):
        if not found.missing:
            return found, losses
        assert len(losses) < most
        losses |= {point: loss(point) for point in found.missing}


def test_first_round_is_a_face_centred_composite_design():
    asked = search({}, (3, 2, 2), SIZES).missing
    offsets = sorted(tuple(np.subtract(point, (3, 2, 2))) for point in asked)
    corners = list(itertools.product((-1, 1), repeat=3))
    faces = [tuple(sign * row) for row in np.eye(3, dtype=int) for sign in (-1, 1)]
    assert offsets == sorted([(0, 0, 0), *corners, *faces])


@pytest.mark.parametrize("best", [(1, 1, 1), (3, 2, 2), (5, 3, 4), (6, 4, 5), (0, 0, 0)])
def test_optimum_of_a_quadratic_is_found_wherever_it_is(best):
    def loss(point):
        a, b, c = np.subtract(point, best)
        return 1.5 + 0.02 * a * a + 0.01 * b * b + 0.012 * c * c + 0.006 * b * c

    found, _ = _run(loss)
    assert next(iter(found.predicted)) == best


def test_noisy_search_loses_little_against_the_true_optimum():
    random = np.random.default_rng(0)
    regrets = []
    for _ in range(100):
        best = random.uniform((1, 1, 1), (5, 3, 4))

        def true(point, best=best):
            return 1.5 + float(np.sum((0.02, 0.01, 0.012) * np.subtract(point, best) ** 2))

        found, _ = _run(lambda point: true(point) + random.normal(0, 0.012))  # noqa: B023
        lowest = min(true(point) for point in itertools.product(*map(range, SIZES)))
        regrets.append(min(true(point) for point in list(found.predicted)[:3]) / lowest - 1)
    assert np.mean(regrets) < 0.002 and np.quantile(regrets, 0.95) < 0.01


def test_diverged_runs_are_left_out_and_other_runs_ignored():
    def loss(point):
        return None if point[2] >= 4 else 1.5 + 0.02 * (point[0] - 2) ** 2 + 0.01 * (point[1] - 2) ** 2

    found, losses = _run(loss)
    assert next(iter(found.predicted))[:2] == (2, 2)
    assert search(losses | {(6, 4, 5): 0.1}, (2, 2, 3), SIZES) == found


def test_surface_without_any_loss_is_refused():
    with pytest.raises(ValueError, match="no run around the centre"):
        _run(lambda point: None)
