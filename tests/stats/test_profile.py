"""Intervals of the parametric law and of power laws, against the delta method."""

import numpy as np
import pytest
from law_points import LAW, best_params, law_loss, make_points
from scipy import optimize, stats

from bench.stats.parametric import fit_parametric, optimal_loss, optimal_params
from bench.stats.power_laws import power_law


def columns(frame):
    return (frame["params"].to_numpy(), (frame["flops"] / (6 * frame["params"])).to_numpy(), frame["loss"].to_numpy())


def test_profile_with_little_noise_is_the_t_interval_of_least_squares():
    params, tokens, loss = columns(make_points(noise=3e-5, span=30.0, seed=2))
    law = fit_parametric(params, tokens, loss, np.random.default_rng(0))

    def residuals(p):
        e, a, b, alpha, beta = p
        terms = np.exp(e) + np.exp(a - alpha * np.log(params)) + np.exp(b - beta * np.log(tokens))
        return np.log(terms) - np.log(loss)

    start = [np.log(LAW["E"]), np.log(LAW["A"]), np.log(LAW["B"]), LAW["alpha"], LAW["beta"]]
    found = optimize.least_squares(residuals, start, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    degrees = len(loss) - 5
    covariance = np.linalg.inv(found.jac.T @ found.jac) * 2 * found.cost / degrees
    half = stats.t.ppf(0.975, degrees) * np.sqrt(np.diag(covariance))
    for place, name in ((3, "alpha"), (4, "beta")):
        own = getattr(law, name)
        assert own.value == pytest.approx(found.x[place], abs=0.02 * half[place])
        assert [own.low, own.high] == pytest.approx(
            [found.x[place] - half[place], found.x[place] + half[place]], abs=0.05 * half[place]
        )


@pytest.mark.parametrize("of", [optimal_params(1e20), optimal_loss(1e20)])
def test_gradients_of_the_optimum_are_those_of_differences(of):
    p = np.array([[np.log(LAW["E"]), np.log(LAW["A"]), np.log(LAW["B"]), LAW["alpha"], LAW["beta"]]])
    steps = 1e-6 * np.eye(5)
    differences = [(of(p + step)[0] - of(p - step)[0])[0] / 2e-6 for step in steps]
    assert of(p)[1][0] == pytest.approx(differences, rel=1e-5, abs=1e-7)


def test_optimum_of_the_law_is_the_known_one():
    p = np.array([[np.log(LAW["E"]), np.log(LAW["A"]), np.log(LAW["B"]), LAW["alpha"], LAW["beta"]]])
    params = best_params(1e20)
    assert np.exp(optimal_params(1e20)(p)[0][0]) == pytest.approx(params)
    assert optimal_loss(1e20)(p)[0][0] == pytest.approx(law_loss(params, 1e20 / (6 * params)))


def test_floor_of_a_narrow_noisy_grid_may_be_0():
    points = columns(make_points(noise=0.02, span=4.0, seed=1, budgets=(1e18, 1.8e18, 3.2e18)))
    law = fit_parametric(*points, np.random.default_rng(0))
    assert law.E.low == 0 and law.E.low <= LAW["E"] <= law.E.high
    assert law.params_exponent.high - law.params_exponent.low > 0.5


def test_shift_that_all_optima_share_moves_the_law_but_not_its_exponent():
    log_flops = np.linspace(40.0, 45.0, 5)
    shift = np.full(5, 0.1)
    plain, shifted = (power_law(log_flops, log_flops / 2, np.full(5, 0.01), each, 20) for each in (0 * shift, shift))
    assert shifted.slope.ends == pytest.approx(plain.slope.ends)
    low, high = np.log(shifted.at(np.exp(42.5)).ends)
    half = stats.t.ppf(0.975, 20) * np.sqrt(0.01**2 / 5 + 0.1**2)
    assert (high - low) / 2 == pytest.approx(half)
