"""Approach 3 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3): L(N, D) = E + A / N^alpha + B / D^beta.

Fitted to log loss with a Huber loss (delta 1e-3), in log-sum-exp form, from the best of a grid of starts: at
each alpha and beta of the grid the other three follow by non-negative least squares (variable projection).
The loss is summed, not averaged, or the optimiser stops early (Besiroglu et al. 2024, arXiv 2404.10102).
E cannot exceed the lowest loss. All starts, and all resamples, are refined together.
Intervals: bootstrap of residuals, widened for the five fitted parameters and by Student's t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

from bench.stats.interval import Interval

_DELTA = 1e-3
_EXPONENTS = np.linspace(0.05, 1.2, 12)
_STARTS = 8
_FEWEST = 10  # twice as many as there are parameters
_SAME_DIRECTION = 0.99  # correlation of log params and log tokens beyond which they count as one variable
_STARTS_FROM = 400  # points: the starts need no more
_ITERATIONS = 200
_STOP = 1e-9  # relative fall of the cost below which a fit has converged
_AT_FLOOR = 0.999  # E as a share of the lowest loss, from which the losses show no floor of their own


@dataclass(frozen=True)
class Parametric:
    """The five parameters, and the exponent of compute-optimal params, beta / (alpha + beta).

    draws: the resampled parameters (R, 5), log E, log A, log B, alpha and beta.
    """

    E: Interval
    A: Interval
    B: Interval
    alpha: Interval
    beta: Interval
    params_exponent: Interval
    draws: np.ndarray = field(repr=False, compare=False)

    def at(self, flops: float) -> dict[str, Interval]:
        """Optimal params and tokens at `flops` = 6 params tokens, and the loss there, from the joint draws.

        Hoffmann et al. 2022, equation 4.
        """
        own = (np.log(self.E.value), np.log(self.A.value), np.log(self.B.value), self.alpha.value, self.beta.value)
        e, a, b, alpha, beta = np.column_stack([np.array(own), self.draws.T])
        log_params = (np.log(alpha / beta) + a - b + beta * np.log(flops / 6)) / (alpha + beta)
        log_tokens = np.log(flops / 6) - log_params
        with np.errstate(over="ignore"):
            loss = np.exp(e) + np.exp(a - alpha * log_params) + np.exp(b - beta * log_tokens)
            found = {"params": np.exp(log_params), "tokens": np.exp(log_tokens), "loss": loss}
        return {name: Interval.from_draws(float(values[0]), values[1:]) for name, values in found.items()}


def fit_parametric(
    params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, bootstraps: int, rng: np.random.Generator,
    done: Callable[[int], object],
) -> Parametric | str:  # fmt: skip
    """The law, or why there is none. `done`: called with the number of fits that have converged since the last call."""
    log_n, log_d = np.log(params), np.log(tokens)
    if len(loss) < _FEWEST or not _independent(log_n, log_d):
        done(bootstraps)
        return "too few points, or params and tokens do not vary independently"
    log_loss, floor = np.log(loss), float(np.log(loss.min()))
    starts = _starts(log_n, log_d, loss, rng)
    candidates, costs = _refine(starts, log_n, log_d, np.tile(log_loss, (len(starts), 1)), floor)
    best = candidates[costs.argmin()]
    if np.exp(best[0] - floor) > _AT_FLOOR:
        done(bootstraps)
        return f"its E would be above the lowest loss, {loss.min():.4g}: the losses do not show where they level off"
    fitted, degrees = _log_law(best[None], log_n, log_d)[0], len(loss) - 5
    scale = np.sqrt(len(loss) / degrees) * np.sqrt(degrees / rng.chisquare(degrees, (bootstraps, 1)))
    drawn = fitted + scale * rng.choice(log_loss - fitted, (bootstraps, len(loss)))
    draws, _ = _refine(np.tile(best, (bootstraps, 1)), log_n, log_d, drawn, np.inf, done)
    with np.errstate(over="ignore"):  # a drawn exponent so large that its coefficient is infinite
        own = {name: (float(of(best)), of(draws.T) if bootstraps else None) for name, of in NAMED.items()}
    return Parametric(**{name: Interval.from_draws(*numbers) for name, numbers in own.items()}, draws=draws)


def _independent(log_n: np.ndarray, log_d: np.ndarray) -> bool:
    """Whether params and tokens vary independently; within one budget, each follows from the other."""
    spread_n, spread_d = log_n.std(), log_d.std()
    if spread_n == 0 or spread_d == 0:
        return False
    return bool(abs(np.corrcoef(log_n, log_d)[0, 1]) < _SAME_DIRECTION)


NAMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "E": lambda p: np.exp(p[0]),
    "A": lambda p: np.exp(p[1]),
    "B": lambda p: np.exp(p[2]),
    "alpha": lambda p: p[3],
    "beta": lambda p: p[4],
    "params_exponent": lambda p: p[4] / (p[3] + p[4]),
}


def _starts(log_n: np.ndarray, log_d: np.ndarray, loss: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(starts, 5): e, a, b, alpha, beta, the best few of the grid; e, a and b are logs."""
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
    return np.stack([start for _, start in sorted(found, key=lambda each: each[0])[:_STARTS]])


def _terms(p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    """Logs of E, A / N^alpha and B / D^beta: parameters (R, 5) -> (3, R, n)."""
    e, a, b, alpha, beta = p.T[:, :, None]
    return np.stack([np.broadcast_to(e, (len(p), len(log_n))), a - alpha * log_n, b - beta * log_d])


def _log_law(p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(_terms(p, log_n, log_d), axis=0)


def _refine(
    starts: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray, floor: float,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Minimise the summed Huber loss of each row of log_loss (R, n) from its start (R, 5), with e at most `floor`.

    Returns the parameters and the Huber losses. Levenberg-Marquardt steps on reweighted squares, for all rows at once.
    """
    centre_n, centre_d = log_n.mean(), log_d.mean()  # centred, so that a and alpha are nearly independent
    x, z = log_n - centre_n, log_d - centre_d
    offset = np.stack([centre_n, centre_d], axis=0)
    p = starts.copy()
    p[:, 1:3] -= p[:, 3:5] * offset
    p[:, 0] = np.minimum(p[:, 0], floor)

    def cost_of(left: np.ndarray) -> np.ndarray:
        size = np.abs(left)
        return np.where(size < _DELTA, left**2 / 2, _DELTA * (size - _DELTA / 2)).sum(axis=1)

    cost = cost_of(_log_law(p, x, z) - log_loss)
    damping = np.full(len(p), 1e-3)
    active = np.arange(len(p))
    for _ in range(_ITERATIONS):
        own, target = p[active], log_loss[active]
        terms = _terms(own, x, z)
        total = np.logaddexp.reduce(terms, axis=0)
        left = total - target
        e, a, b = np.exp(terms - total)
        jacobian = np.stack([e, a, b, -a * x, -b * z], axis=-1)
        weighted = jacobian * np.minimum(1.0, _DELTA / np.maximum(np.abs(left), 1e-300))[..., None]
        normal = np.einsum("rni,rnj->rij", weighted, jacobian)
        gradient = np.einsum("rni,rn->ri", weighted, left)
        diagonal = np.einsum("rii->ri", normal)
        diagonal += damping[active, None] * diagonal + 1e-12
        trial = own - np.linalg.solve(normal, gradient[..., None])[..., 0]
        trial[:, 0] = np.minimum(trial[:, 0], floor)
        found = cost_of(_log_law(trial, x, z) - target)
        better = found < cost[active]
        stopped = np.where(better, cost[active] - found < _STOP * cost[active], damping[active] > 1e6)
        p[active[better]], cost[active[better]] = trial[better], found[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 5)
        done(int(stopped.sum()))
        active = active[~stopped]
        if not len(active):
            break
    done(len(active))
    p[:, 1:3] += p[:, 3:5] * offset
    return p, cost
