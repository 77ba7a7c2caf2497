"""A method's loss minus dense's under every contract, read off the curves of the same runs.

Intervals cover the scatter of runs about their curves, validation documents and, in equal time, the optimal sizes and
the noise of timing. They do not cover the choice of the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.isoflop.analysis.curves import DRAWS, FAULTS, Curve, Size, curves, with_draws
from bench.isoflop.analysis.differences import document_noise, drawn
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.analysis.wall_clock import frontier
from bench.stats.interval import Interval

CONTRACTS: dict[str, Size | None] = {
    "train_flops": None,  # each at its own best size
    "forward_flops": "forward_flops",
    "active_params": "params_active",
    "total_params": "params_total",
    "wall_clock": None,  # in the training seconds of dense's best run
}


NO_DENSE = "no dense optimum inside the grid"


@dataclass(frozen=True)
class Comparison:
    """A method's loss minus dense's under one contract; `value` is None if there is none, and `why` says why."""

    method: str
    budget: float
    contract: str
    value: Interval | None
    dense_loss: float | None
    why: str = ""


def comparisons(results: Results) -> list[Comparison]:
    """Every method, budget and contract."""
    by_size = {size: curves(results, size) for size in set(CONTRACTS.values()) if size}
    own = by_size["forward_flops"]
    rng = np.random.default_rng(1)  # of documents; that of the curves is another
    found = []
    for budget in results.budgets:
        for method in results.methods:
            if method == REFERENCE:
                continue
            documents = document_noise(results, method, REFERENCE, budget)
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
                curve = (by_size[size] if size else own).get((method, budget))
                fault = curve.fault if curve else "too few sizes"
                errors = drawn(documents, 1 + DRAWS, rng)
                found.append(_compared(method, budget, contract, dense, other, errors, fault))
    return found


def _compared(
    method: str, budget: float, contract: str, dense: np.ndarray | None, other: np.ndarray | None, errors: np.ndarray,
    fault: str,
) -> Comparison:  # fmt: skip
    if dense is None:
        return Comparison(method, budget, contract, None, None, NO_DENSE)
    if other is None or not np.isfinite(other[0]):
        poor = fault if fault == FAULTS["poor fit"] else ""
        why = {"train_flops": fault, "wall_clock": "time outside range"}
        reason = why.get(contract, poor or "size outside grid")
        return Comparison(method, budget, contract, None, float(dense[0]), reason)
    n = min(len(dense), len(other))
    return Comparison(method, budget, contract, with_draws(other[:n] - dense[:n] + errors[:n]), float(dense[0]))


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
    if other is None or other.status == "poor fit":
        return loss, None
    n = min(len(size), 1 + len(other.draws))
    return loss, other.first(n).at(size[:n])


def _at_equal_seconds(
    results: Results, own: dict[tuple[str, float], Curve], method: str, budget: float
) -> np.ndarray | None:
    """Loss of the method's FLOP-optimal sizes after the training seconds of dense's optimum at `budget`."""
    dense = frontier(results, own, REFERENCE)
    if budget not in dense.budgets:
        return None
    return frontier(results, own, method).loss_at(dense.log_seconds[:, dense.budgets.index(budget)])
