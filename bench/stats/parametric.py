"""Approach 3 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3): L(N, D) = E + A / N^alpha + B / D^beta.

Fitted to log loss with a Huber loss (delta 1e-3), in log-sum-exp form, from the best of a grid of starts: at
each alpha and beta of the grid the other three follow by non-negative least squares (variable projection).
The loss is summed, not averaged, or the optimiser stops early (Besiroglu et al. 2024, arXiv 2404.10102).
Intervals: bootstrap over points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from bench.stats.interval import Interval

_DELTA = 1e-3
_EXPONENTS = np.linspace(0.05, 1.2, 12)
_STARTS = 8
_FEWEST = 10  # twice as many as there are parameters
_SAME_DIRECTION = 0.99  # correlation of log params and log tokens beyond which they count as one variable
_STARTS_FROM = 400  # points: the starts need no more


@dataclass(frozen=True)
class Parametric:
    """The five parameters, and the exponent of compute-optimal params, beta / (alpha + beta)."""

    E: Interval
    A: Interval
    B: Interval
    alpha: Interval
    beta: Interval
    params_exponent: Interval


def fit_parametric(
    params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, bootstraps: int, rng: np.random.Generator,
    done: Callable[[], object],
) -> Parametric | None:  # fmt: skip
    """None if there are too few points, or params and tokens do not vary independently. `done`: per bootstrap."""
    log_n, log_d = np.log(params), np.log(tokens)
    if len(loss) < _FEWEST or not _independent(log_n, log_d):
        for _ in range(bootstraps):
            done()
        return None
    log_loss = np.log(loss)
    candidates = [_refine(start, log_n, log_d, log_loss) for start in _starts(log_n, log_d, loss, rng)]
    best = min(candidates, key=lambda found: found[1])[0]
    draws = np.empty((bootstraps, 5))
    for row in draws:
        chosen = rng.integers(0, len(loss), len(loss))
        row[:] = _refine(best, log_n[chosen], log_d[chosen], log_loss[chosen])[0]
        done()
    with np.errstate(over="ignore"):  # a drawn exponent so large that its coefficient is infinite
        own = {name: (float(of(best)), of(draws.T) if bootstraps else None) for name, of in _NAMED.items()}
    return Parametric(**{name: Interval.from_draws(*numbers) for name, numbers in own.items()})


def _independent(log_n: np.ndarray, log_d: np.ndarray) -> bool:
    """Whether params and tokens vary independently; within one budget, each follows from the other."""
    spread_n, spread_d = log_n.std(), log_d.std()
    if spread_n == 0 or spread_d == 0:
        return False
    return bool(abs(np.corrcoef(log_n, log_d)[0, 1]) < _SAME_DIRECTION)


_NAMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "E": lambda p: np.exp(p[0]),
    "A": lambda p: np.exp(p[1]),
    "B": lambda p: np.exp(p[2]),
    "alpha": lambda p: p[3],
    "beta": lambda p: p[4],
    "params_exponent": lambda p: p[4] / (p[3] + p[4]),
}


def _starts(log_n: np.ndarray, log_d: np.ndarray, loss: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """(e, a, b, alpha, beta), the best few of the grid; e, a and b are logs."""
    if len(loss) > _STARTS_FROM:
        some = rng.choice(len(loss), _STARTS_FROM, replace=False)
        log_n, log_d, loss = log_n[some], log_d[some], loss[some]
    found = []
    mean_n, mean_d = log_n.mean(), log_d.mean()
    for alpha in _EXPONENTS:
        for beta in _EXPONENTS:
            columns = [np.ones_like(loss), np.exp(-alpha * (log_n - mean_n)), np.exp(-beta * (log_d - mean_d))]
            (e, a, b), residual = optimize.nnls(np.stack(columns, axis=1), loss)
            floor = 1e-3 * loss.min()  # a vanished term starts small, not at log 0
            logs = np.log(np.maximum([e, a, b], floor)) + [0, alpha * mean_n, beta * mean_d]
            found.append((residual, np.array([*logs, alpha, beta])))
    return [start for _, start in sorted(found, key=lambda each: each[0])[:_STARTS]]


def _refine(start: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, float]:
    """Minimise the summed Huber loss from `start`; the parameters and the loss there."""
    centre_n, centre_d = log_n.mean(), log_d.mean()  # centred, so that a and alpha are nearly independent

    def terms(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = np.stack(
            [np.full_like(log_n, p[0]), p[1] - p[3] * (log_n - centre_n), p[2] - p[4] * (log_d - centre_d)]
        )
        peak = parts.max(axis=0)
        shares = np.exp(parts - peak)
        total = shares.sum(axis=0)
        return peak + np.log(total), shares / total

    def residuals(p: np.ndarray) -> np.ndarray:
        return terms(p)[0] - log_loss

    def jacobian(p: np.ndarray) -> np.ndarray:
        e, a, b = terms(p)[1]
        return np.stack([e, a, b, -a * (log_n - centre_n), -b * (log_d - centre_d)], axis=1)

    centred = start.copy()
    centred[1] -= start[3] * centre_n
    centred[2] -= start[4] * centre_d
    solved = optimize.least_squares(residuals, centred, jacobian, loss="huber", f_scale=_DELTA, max_nfev=200)
    p = solved.x.copy()
    p[1] += p[3] * centre_n
    p[2] += p[4] * centre_d
    return p, float(solved.cost)
