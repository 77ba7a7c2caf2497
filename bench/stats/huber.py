"""The Huber loss of the law L(N, D) = E + A / N^alpha + B / D^beta on log loss, and its minimisation.

Parameters are rows (R, 5) of log E, log A, log B, alpha and beta. All rows are minimised together, by
Levenberg-Marquardt steps on reweighted squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from scipy import optimize, special

DELTA = 1e-3  # Hoffmann et al. 2022, arXiv 2203.15556, section 3.3
_ITERATIONS = 200
_STOP = 1e-6  # relative fall of the cost below which a row has converged
_LEAST_NOISE = 1e-9  # relative to the loss

Quantity = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # (R, 5) -> values (R,), gradients (R, 5)


@dataclass(frozen=True)
class Pull:
    """A penalty that pulls a quantity of each row to its target: weights (R,) / 2 times the squared distance (R,)."""

    quantities: Sequence[Quantity]
    targets: np.ndarray
    weights: np.ndarray

    def __call__(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, 5) -> the quantity of each row (R,) and its gradient (R, 5)."""
        values, slopes = np.empty(len(p)), np.empty_like(p)
        at = 0
        for quantity, rows in groupby(self.quantities):
            own = slice(at, at := at + len(list(rows)))
            values[own], slopes[own] = quantity(p[own])
        return values, slopes

    def rows(self, places: np.ndarray) -> Pull:
        return Pull([self.quantities[place] for place in places], self.targets[places], self.weights[places])


@dataclass(frozen=True)
class LawCost:
    """The summed Huber loss of points: logs of params, tokens and loss, (n,)."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray

    @cached_property
    def _centring(self) -> np.ndarray:
        """(5, 5): from parameters at the mean of log N and log D, which are nearly independent, to those at 0."""
        matrix = np.eye(5)
        matrix[3, 1], matrix[4, 2] = self.log_n.mean(), self.log_d.mean()
        return matrix

    def residuals(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, 5) -> residuals of log loss (R, n) and their derivatives (R, n, 5)."""
        e, a, b, alpha, beta = p.T[:, :, None]
        terms = np.stack([e + 0 * self.log_n, a - alpha * self.log_n, b - beta * self.log_d])
        largest = terms.max(axis=0)
        shares = np.exp(terms - largest)
        total = shares.sum(axis=0)
        e, a, b = shares / total
        jacobian = np.stack([e, a, b, -a * self.log_n, -b * self.log_d], axis=-1)
        return largest + np.log(total) - self.log_loss, jacobian

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """(R, 5) -> (R,)."""
        return _huber(self.residuals(p)[0])

    def minimise(self, starts: np.ndarray, floor: float = np.inf, pull: Pull | None = None) -> np.ndarray:
        """The parameters (R, 5) of least cost, with the penalty if there is one, from starts (R, 5); log E <= floor."""
        p = starts.copy()
        p[:, 0] = np.minimum(p[:, 0], floor)
        state = self._evaluate(p, pull)
        damping, running = np.full(len(p), 1e-3), np.arange(len(p))
        diagonal = np.arange(5)
        for _ in range(_ITERATIONS):
            cost, gradient, matrix = (each[running] for each in state)
            matrix[:, diagonal, diagonal] *= 1 + damping[running, None]
            matrix[:, diagonal, diagonal] += 1e-12
            trial = p[running] - np.linalg.solve(matrix, gradient[..., None])[..., 0] @ self._centring
            trial[:, 0] = np.minimum(trial[:, 0], floor)
            with np.errstate(all="ignore"):
                found = self._evaluate(trial, pull.rows(running) if pull else None)
            better = found[0] < cost
            going = np.where(better, cost - found[0] >= _STOP * cost, damping[running] < 1e6)
            damping[running] *= np.where(better, 0.2, 5.0)
            for kept, new in zip((p, *state), (trial, *found), strict=True):
                kept[running[better]] = new[better]
            running = running[going]
            if not len(running):
                break
        return p

    def _evaluate(self, p: np.ndarray, pull: Pull | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cost (R,), gradient (R, 5) and the matrix of the reweighted squares (R, 5, 5), in centred parameters."""
        left, jacobian = self.residuals(p)
        jacobian = jacobian @ self._centring.T
        weighted = jacobian * np.minimum(1.0, DELTA / np.maximum(np.abs(left), 1e-300))[..., None]
        cost, gradient = _huber(left), (left[:, None, :] @ weighted)[:, 0]
        matrix = weighted.transpose(0, 2, 1) @ jacobian
        if pull:
            values, slopes = pull(p)
            slopes, off = slopes @ self._centring.T, values - pull.targets
            cost = cost + pull.weights * off**2 / 2
            gradient = gradient + (pull.weights * off)[:, None] * slopes
            matrix = matrix + pull.weights[:, None, None] * slopes[:, :, None] * slopes[:, None, :]
        return cost, gradient, matrix


def _huber(left: np.ndarray) -> np.ndarray:
    size = np.abs(left)
    return np.where(size < DELTA, left**2 / 2, DELTA * (size - DELTA / 2)).sum(axis=-1)


def noise_of(cost: float) -> float:
    """The standard deviation of normal residuals whose mean Huber loss is `cost`."""

    def excess(log_sd: float) -> float:
        k = DELTA / np.exp(log_sd)
        mean = (special.ndtr(k) - 0.5) + k * _density(k) - k**2 * special.ndtr(-k)
        return float(np.exp(2 * log_sd) * mean - cost)

    least, most = np.log(_LEAST_NOISE), np.log(1 + 2 * cost / DELTA)
    return float(np.exp(optimize.brentq(excess, least, most))) if excess(least) < 0 else _LEAST_NOISE


def score_moments(sd: float) -> tuple[float, float]:
    """Of normal residuals: the mean square of the Huber loss's derivative, and the mean of its second derivative."""
    k = DELTA / sd
    inside = float(2 * special.ndtr(k) - 1)
    return sd**2 * (inside - 2 * k * _density(k)) + 2 * DELTA**2 * float(special.ndtr(-k)), inside


def _density(k: float) -> float:
    return float(np.exp(-(k**2) / 2) / np.sqrt(2 * np.pi))
