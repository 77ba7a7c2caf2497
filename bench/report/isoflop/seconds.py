"""What training takes on this machine: seconds a token of each size, by the steps that were timed alone."""

from __future__ import annotations

import numpy as np
from scipy import stats

from bench.report.isoflop.curves import Curve, curves
from bench.report.isoflop.results import Results


def seconds_per_token(results: Results, method: str, log_forward: np.ndarray) -> np.ndarray:
    """Seconds of training a token at log forward FLOPs a token (1 + R,), on a line through the sizes timed (log, log).

    The first is by the median steps; for the others, each size's step is drawn from the interval of its median, so
    that what follows knows of the noise of timing. NaN outside the sizes that were timed, or where none were.
    """
    timed = sorted(results.timings(method), key=lambda t: t.step_flops / t.step_tokens)
    if len(timed) < 2:
        return np.full(len(log_forward), np.nan)
    x = np.log([t.step_flops / t.step_tokens / 3 for t in timed])
    y = np.log([t.step_seconds.median / t.step_tokens for t in timed])
    widths = np.log([t.step_seconds.high / t.step_seconds.low for t in timed])
    spread = widths / (2 * stats.norm.ppf(0.975))  # as if the log of a median were normal
    rng = np.random.default_rng(_seed(method))
    drawn = y + spread * rng.standard_normal((len(log_forward), len(y)))
    drawn[0] = y
    return np.exp(
        [np.interp(at, x, row, left=np.nan, right=np.nan) for at, row in zip(log_forward, drawn, strict=True)]
    )


def _seed(method: str) -> int:
    """Each method's own, so that its noise and dense's are not the same."""
    return int.from_bytes(method.encode(), "big") % 2**32


def frontier_draws(
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
        log_seconds, losses, _ = frontier_draws(results, own, method)
        if len(log_seconds):
            found[method] = (np.exp(log_seconds), losses[0])
    return found
