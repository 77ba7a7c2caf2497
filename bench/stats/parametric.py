"""Approach 3 (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3): L(N, D) = E + A / N^alpha + B / D^beta.

Fitted to log loss with a Huber loss (delta 1e-3), in log-sum-exp form, from the best of a grid of starts: at
each alpha and beta of the grid the other three follow by non-negative least squares (variable projection).
The loss is summed, not averaged, or the optimiser stops early (Besiroglu et al. 2024, arXiv 2404.10102).
E cannot exceed the lowest loss. Intervals are profiles of the Huber loss (`bench.stats.profile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

from bench.stats.huber import LawCost, Quantity
from bench.stats.interval import Interval
from bench.stats.profile import Profile

_EXPONENTS = np.linspace(0.05, 1.2, 12)
_STARTS = 8
_FEWEST = 10  # twice as many as there are parameters
_SAME_DIRECTION = 0.99  # correlation of log params and log tokens beyond which they count as one variable
_STARTS_FROM = 400  # points: the starts need no more
_AT_FLOOR = 0.999  # E as a share of the lowest loss, from which the losses show no floor of their own


@dataclass(frozen=True)
class Parametric:
    """The five parameters, and the exponent of compute-optimal params, beta / (alpha + beta).

    best: log E, log A, log B, alpha and beta, (5,). profile: of the cost about it, None without intervals.
    """

    E: Interval
    A: Interval
    B: Interval
    alpha: Interval
    beta: Interval
    params_exponent: Interval
    best: np.ndarray = field(repr=False, compare=False)
    profile: Profile | None = field(repr=False, compare=False)

    def at(self, flops: float) -> dict[str, Interval]:
        """Optimal params and tokens at `flops` = 6 params tokens, and the loss there.

        Hoffmann et al. 2022, equation 4.
        """
        params, product = optimal_params(flops), np.log(flops / 6)
        quantities = [params, params, optimal_loss(flops)]
        scales = [_exp, lambda log_params: _exp(product - log_params), _same]
        names = ("params", "tokens", "loss")
        return dict(zip(names, _intervals(quantities, scales, self.best, self.profile), strict=True))


def fit_parametric(
    params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, rng: np.random.Generator, intervals: bool = True
) -> Parametric | str:
    """The law, or why there is none."""
    log_n, log_d = np.log(params), np.log(tokens)
    if len(loss) < _FEWEST or not _independent(log_n, log_d):
        return "too few points, or params and tokens do not vary independently"
    cost = LawCost(log_n, log_d, np.log(loss))
    fitted = cost.minimise(_starts(log_n, log_d, loss, rng), float(np.log(loss.min())))
    best = fitted[cost(fitted).argmin()]
    if np.exp(best[0]) / loss.min() > _AT_FLOOR:
        return f"its E would be above the lowest loss, {loss.min():.4g}: the losses do not show where they level off"
    profile = Profile.of(cost, best) if intervals else None
    quantities, scales = zip(*NAMED.values(), strict=True)
    own = dict(zip(NAMED, _intervals(quantities, scales, best, profile), strict=True))
    return Parametric(**own, best=best, profile=profile)


def _intervals(
    quantities: Sequence[Quantity], scales: Sequence[Callable], best: np.ndarray, profile: Profile | None
) -> list[Interval]:
    """Of each quantity, on its scale."""
    values = [float(scale(quantity(best[None])[0][0])) for quantity, scale in zip(quantities, scales, strict=True)]
    if profile is None:
        return [Interval(value) for value in values]
    with np.errstate(over="ignore"):
        ends = [sorted(scale(each).tolist()) for scale, each in zip(scales, profile.ends(quantities), strict=True)]
    return [Interval(value, *each) for value, each in zip(values, ends, strict=True)]


def _independent(log_n: np.ndarray, log_d: np.ndarray) -> bool:
    """Whether params and tokens vary independently; within one budget, each follows from the other."""
    spread_n, spread_d = log_n.std(), log_d.std()
    if spread_n == 0 or spread_d == 0:
        return False
    return bool(abs(np.corrcoef(log_n, log_d)[0, 1]) < _SAME_DIRECTION)


def _parameter(place: int) -> Quantity:
    slope = np.eye(5)[place]
    return lambda p: (p[:, place], np.broadcast_to(slope, p.shape))


def _floor(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E, whose interval may reach down to 0."""
    value = np.exp(p[:, 0])
    return value, value[:, None] * np.eye(5)[0]


def _exponent(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha, beta = p[:, 3], p[:, 4]
    total = alpha + beta
    none = np.zeros_like(total)
    return beta / total, np.stack([none, none, none, -beta / total**2, alpha / total**2], axis=1)


def optimal_params(flops: float) -> Quantity:
    """Log params of lowest loss at `flops` = 6 params tokens."""
    product = np.log(flops / 6)

    def of(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, a, b, alpha, beta = p.T
        total = alpha + beta
        value = (np.log(alpha / beta) + a - b + beta * product) / total
        slopes = [np.zeros_like(value), 1 / total, -1 / total, (1 / alpha - value) / total]
        return value, np.stack([*slopes, (product - 1 / beta - value) / total], axis=1)

    return of


def optimal_loss(flops: float) -> Quantity:
    """The loss there. Its gradient is that at fixed params, because the loss is least (envelope theorem)."""
    log_params, product = optimal_params(flops), np.log(flops / 6)

    def of(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e, a, b, alpha, beta = p.T
        log_n, _ = log_params(p)
        log_d = product - log_n
        terms = np.stack([np.exp(e), np.exp(a - alpha * log_n), np.exp(b - beta * log_d)], axis=1)
        return terms.sum(axis=1), np.column_stack([terms, -log_n * terms[:, 1], -log_d * terms[:, 2]])

    return of


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _exp(log_value: np.ndarray) -> np.ndarray:
    """An open end stays open."""
    return np.where(np.isneginf(log_value), -np.inf, np.exp(log_value))


NAMED: dict[str, tuple[Quantity, Callable[[np.ndarray], np.ndarray]]] = {
    "E": (_floor, lambda value: np.maximum(value, 0.0)),
    "A": (_parameter(1), _exp),
    "B": (_parameter(2), _exp),
    "alpha": (_parameter(3), _same),
    "beta": (_parameter(4), _same),
    "params_exponent": (_exponent, _same),
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
