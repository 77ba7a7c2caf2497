"""Loss over size at equal training FLOPs, and what can be read off those curves: optima, contracts, parity.

A curve is a parabola in the log of a size (parameters stored or met, forward FLOPs a token), one a method and budget,
with bootstrap draws of its coefficients from the residuals of all of the method's budgets. A figure outside the sizes
that were run is not given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.fit.parabolas import BELOW, Budget, Estimate, residuals
from bench.report.isoflop.results import REFERENCE, Results

Size = Literal["params_total", "params_active", "forward_flops"]
CONTRACTS: dict[str, Size | None] = {
    "train_flops": None,  # each at its own best size
    "forward_flops": "forward_flops",
    "active_params": "params_active",
    "total_params": "params_total",
    "wall_clock": None,  # in the seconds that dense's best run trains for
}
_DRAWS = 1000
_OUTSIDE = "its optimum is not inside the sizes that were run"
_FAULTS = {
    "": "",
    "concave": _OUTSIDE,
    "edge": _OUTSIDE,
    "below every run": f"its losses are no parabola: a fitted minimum is {100 * BELOW:.0f} % and more below every run",
}


@dataclass(frozen=True)
class Curve:
    """Loss over the log of a size. `draws` (R, 3): coefficients; empty where nothing is left to draw from."""

    budget: Budget
    coefficients: np.ndarray
    draws: np.ndarray

    @property
    def fault(self) -> str:
        """Why its minimum cannot be taken for an optimum; empty where it can."""
        return _FAULTS[self.budget.fault(self.coefficients)]

    @property
    def inside(self) -> bool:
        """Whether it has an optimum between the smallest and the largest size."""
        return not self.fault

    @property
    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Log size and loss at the lowest point between the smallest and the largest size that were run (1 + R,).

        The fitted one first, then the drawn ones; where a parabola's minimum is not between them, an end is lowest.
        """
        least, most = self._ends
        at, _ = self.budget.minima(self._all)
        ends = np.array([least, most])[np.argmin([self._loss(np.full(len(at), end)) for end in (least, most)], axis=0)]
        size = np.where((least < at) & (at < most), at, ends)
        return size, self._loss(size)

    @property
    def unbounded_optimum(self) -> np.ndarray:
        """Log size of the optimum (1 + R,); infinite where it is at an end, so that it may be anywhere beyond."""
        size, _ = self.optimum
        return self._open_at_ends(size)

    def at(self, log_size: np.ndarray) -> np.ndarray:
        """Loss at log sizes (1 + R,), NaN outside the sizes that were run (by the first, which is the fitted one)."""
        least, most = self._ends
        if not least - 1e-9 <= log_size[0] <= most + 1e-9:
            return np.full(len(log_size), np.nan)
        return self._loss(log_size)

    def smallest_reaching(self, loss: np.ndarray) -> np.ndarray:
        """The smallest log size whose loss is `loss` or less (1 + R,).

        Infinite where no size that was run reaches it, minus infinity where the smallest does.
        """
        least, most = self._ends
        c0, c1, c2 = self._all.T
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(c1 * c1 - 4 * c2 * (c0 - loss)) / (2 * c2)
            falling = -c1 / (2 * c2) - spread + self.budget.centre  # where the parabola falls through `loss`
        within = np.isfinite(falling) & (least < falling) & (falling < most)
        reached = self._loss(np.full(len(loss), least)) <= loss
        return np.where(reached, -np.inf, np.where(within, falling, np.inf))

    @property
    def _ends(self) -> tuple[float, float]:
        return float(self.budget.log_params.min()), float(self.budget.log_params.max())

    def _open_at_ends(self, log_size: np.ndarray) -> np.ndarray:
        least, most = self._ends
        return np.where(log_size <= least, -np.inf, np.where(log_size >= most, np.inf, log_size))

    def _loss(self, log_size: np.ndarray) -> np.ndarray:
        z = log_size - self.budget.centre
        c0, c1, c2 = self._all.T
        return c0 + c1 * z + c2 * z * z

    @property
    def _all(self) -> np.ndarray:
        return np.concatenate([self.coefficients[None], self.draws])


def curves(results: Results, size: Size, loss: str = "loss") -> dict[tuple[str, float], Curve]:
    """(method, budget) -> its curve, for those with three sizes and more."""
    rng = np.random.default_rng(0)
    found = {}
    for method in results.methods:
        budgets = []
        for flops in results.budgets:
            own = results.cell(method, flops)
            if own[size].nunique() >= 3:
                columns = (own[name].to_numpy(dtype=float) for name in (size, "tokens"))
                log_size, log_tokens = (np.log(column) for column in columns)
                budgets.append(Budget(flops, log_size, log_tokens, own[loss].to_numpy(dtype=float)))
        left = residuals(budgets)
        for budget in budgets:
            draws = budget.drawn(left, _DRAWS, rng) if len(left) else np.empty((0, 3))
            found[method, budget.flops] = Curve(budget, budget.coefficients(budget.loss), draws)
    return found


@dataclass(frozen=True)
class Comparison:
    """A method's loss minus dense's under one contract; `value` is None where it cannot be read off, `why` says so."""

    method: str
    budget: float
    contract: str
    value: Estimate | None
    dense_loss: float | None
    why: str = ""


def comparisons(results: Results) -> list[Comparison]:
    """Every method, budget and contract."""
    by_size = {size: curves(results, size) for size in set(CONTRACTS.values()) if size}
    own = by_size["forward_flops"]
    found = []
    for budget in results.budgets:
        for method in results.methods:
            if method == REFERENCE:
                continue
            for contract, size in CONTRACTS.items():
                if contract == "wall_clock":
                    dense, other = (
                        _optimum_loss(own, REFERENCE, budget),
                        _at_equal_seconds(results, own, method, budget),
                    )
                elif size is None:
                    dense, other = (_optimum_loss(own, name, budget) for name in (REFERENCE, method))
                else:
                    dense, other = _at_dense_size(by_size[size], method, budget)
                curve = own.get((method, budget))
                fault = curve.fault if curve else "too few sizes were run"
                found.append(_compared(method, budget, contract, dense, other, fault))
    return found


def _compared(
    method: str, budget: float, contract: str, dense: np.ndarray | None, other: np.ndarray | None, fault: str
) -> Comparison:
    if dense is None:
        return Comparison(method, budget, contract, None, None, "dense has no optimum inside the sizes that were run")
    if other is None or not np.isfinite(other[0]):
        why = {
            "train_flops": fault,
            "wall_clock": "no optima on both sides of those seconds",
        }
        return Comparison(method, budget, contract, None, float(dense[0]), why.get(contract, "not run at that size"))
    n = min(len(dense), len(other))
    return Comparison(method, budget, contract, estimate(other[:n] - dense[:n]), float(dense[0]))


def estimate(values: np.ndarray) -> Estimate:
    """The fitted value, which comes first, with the interval of the drawn ones; an end may be infinite."""
    return Estimate.of(float(values[0]), values[1:])


def _optimum_loss(own: dict[tuple[str, float], Curve], method: str, budget: float) -> np.ndarray | None:
    curve = own.get((method, budget))
    return curve.optimum[1] if curve is not None and curve.inside else None


def _at_dense_size(
    own: dict[tuple[str, float], Curve], method: str, budget: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    dense, other = own.get((REFERENCE, budget)), own.get((method, budget))
    if dense is None or not dense.inside:
        return None, None
    size, loss = dense.optimum
    if other is None:
        return loss, None
    n = min(len(size), 1 + len(other.draws))
    return loss, _cut(other, n).at(size[:n])


def _cut(curve: Curve, n: int) -> Curve:
    return Curve(curve.budget, curve.coefficients, curve.draws[: n - 1])


def seconds_per_token(results: Results, method: str, log_forward: np.ndarray) -> np.ndarray:
    """Seconds of training a token at log forward FLOPs a token, on a line through the sizes timed (log, log).

    NaN outside the sizes that were timed, or where none were.
    """
    timed = results.timings(method)
    if len(timed) < 2:
        return np.full(len(log_forward), np.nan)
    x = np.log([t.step_flops / t.step_tokens / 3 for t in timed])
    y = np.log([t.step_seconds.median / t.step_tokens for t in timed])
    order = np.argsort(x)
    return np.exp(np.interp(log_forward, x[order], y[order], left=np.nan, right=np.nan))


def _frontier(
    results: Results, own: dict[tuple[str, float], Curve], method: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Budgets with an optimum: log training seconds there (budgets,), loss (1 + R, budgets), and the budgets."""
    seconds, losses, budgets = [], [], []
    for budget in results.budgets:
        curve = own.get((method, budget))
        if curve is None or not curve.inside:
            continue
        size, loss = curve.optimum
        each = seconds_per_token(results, method, size[:1])[0]
        if np.isfinite(each):
            seconds.append(np.log(each * budget / (3 * np.exp(size[0]))))
            losses.append(loss)
            budgets.append(budget)
    n = min(map(len, losses), default=0)
    return (
        np.array(seconds),
        np.stack([each[:n] for each in losses], 1) if losses else np.empty((0, 0)),
        np.array(budgets),
    )


def frontier(results: Results) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> training seconds and loss of its optima, budget by budget, on this machine running nothing else."""
    own = curves(results, "forward_flops")
    found = {}
    for method in results.methods:
        log_seconds, losses, _ = _frontier(results, own, method)
        if len(log_seconds):
            found[method] = (np.exp(log_seconds), losses[0])
    return found


def _at_equal_seconds(
    results: Results, own: dict[tuple[str, float], Curve], method: str, budget: float
) -> np.ndarray | None:
    """The method's best loss in the seconds that dense's optimum at `budget` trains for: a line in log, log."""
    dense_seconds, _, dense_budgets = _frontier(results, own, REFERENCE)
    if budget not in dense_budgets:
        return None
    log_seconds, losses, _ = _frontier(results, own, method)
    at = dense_seconds[list(dense_budgets).index(budget)]
    if len(log_seconds) < 2 or not log_seconds.min() <= at <= log_seconds.max():
        return None
    with np.errstate(invalid="ignore"):  # a drawn parabola may have its minimum below 0: NaN, which intervals leave out
        return np.exp([np.interp(at, log_seconds, row) for row in np.log(losses)])


@dataclass(frozen=True)
class Parity:
    """The smallest model of a method that reaches dense's optimal loss at the same training FLOPs.

    Ratios over dense's optimum; None where none can be given, and `why` says so where it is about that loss.
    """

    method: str
    budget: float
    forward_flops: Estimate | None
    step_time: Estimate | None
    optimum_flops: Estimate | None  # forward FLOPs of the method's own optimum over dense's
    why: str = ""


_WHY_NOT = {math.inf: "reaches it at no size that was run", -math.inf: "reaches it at the smallest size that was run"}


def parities(results: Results) -> list[Parity]:
    """Every method and budget for which dense has an optimum."""
    own = curves(results, "forward_flops")
    found = []
    for budget in results.budgets:
        dense = own.get((REFERENCE, budget))
        if dense is None or not dense.inside:
            continue
        size, loss = dense.optimum
        for method in results.methods:
            curve = own.get((method, budget))
            if method == REFERENCE or curve is None:
                continue
            n = min(len(size), 1 + len(curve.draws))
            cut = _cut(curve, n)
            least = cut.smallest_reaching(loss[:n])
            dense_time = seconds_per_token(results, REFERENCE, size[:n])
            time = _open(seconds_per_token(results, method, least), least) / dense_time
            found.append(
                Parity(
                    method, budget, _ratio(np.exp(least - size[:n])), _ratio(time),
                    _ratio(np.exp(cut.unbounded_optimum - size[:n])) if curve.inside else None,
                    _WHY_NOT.get(float(least[0]), ""),
                )
            )  # fmt: skip
    return found


def _open(seconds: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    """Seconds of sizes that may be anywhere beyond those that were run: anything, too."""
    return np.where(np.isposinf(log_size), np.inf, np.where(np.isneginf(log_size), 0.0, seconds))


def _ratio(values: np.ndarray) -> Estimate | None:
    return estimate(values) if np.isfinite(values[0]) and values[0] > 0 else None
