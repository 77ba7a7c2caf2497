"""Training time on this machine: seconds/token of each size, from steps timed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.config.identity import MethodId
from bench.isoflop.analysis.curves import Curve, curves
from bench.isoflop.analysis.results import Results


def seconds_per_token(results: Results, method: str, log_forward: np.ndarray) -> np.ndarray:
    """Training seconds/token at log forward FLOPs/token (1 + R,), on a line through the timed sizes (log, log).

    The first uses the median steps. For the others each size's step is drawn from the interval of its median, which
    carries the noise of timing on. NaN outside the sizes that were timed, or where none were.
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


def on_threads(results: Results) -> str:
    """The number of threads of the timed steps, in words; empty on a GPU."""
    machine = results.study.environment
    return "" if machine.device != "cpu" else f", on {machine.threads} thread{'s' * (machine.threads != 1)}"


def _seed(method: str) -> int:
    """Each method's own, so that its noise and dense's differ; by the spelling of the first committed figures."""
    own = MethodId.parse(method)
    spelling = f"{own.name} ({own.variant})" if own.variant else own.name
    return int.from_bytes(spelling.encode(), "big") % 2**32


@dataclass(frozen=True)
class Frontier:
    """A method's FLOP-optimal sizes, one per budget with an optimum inside the sizes that were run.

    log_seconds, loss: (1 + R, budgets), the fitted ones first. A draw has the size of its parabola's minimum, the step
    time of that size drawn within the noise of timing, and so its own seconds.
    """

    budgets: list[float]
    log_seconds: np.ndarray
    loss: np.ndarray

    def loss_at(self, log_seconds: np.ndarray) -> np.ndarray:
        """Loss after log seconds (1 + R,), on a line through the sizes of the same draw (log, log).

        A draw of other seconds than those of its sizes may have any loss above that of the shortest training, or below
        that of the longest: it is infinite.
        """
        if len(self.budgets) < 2:
            return np.full(len(log_seconds), np.nan)
        n = min(len(log_seconds), len(self.loss))
        lines = zip(log_seconds[:n], self.log_seconds[:n], self.loss[:n], strict=True)
        return np.array([_on_line(*line) for line in lines])


def _on_line(at: float, log_seconds: np.ndarray, loss: np.ndarray) -> float:
    """NaN, which opens intervals, where seconds are not known or a drawn parabola has its minimum below 0."""
    if np.isnan([at, *log_seconds]).any() or loss.min() <= 0:
        return float("nan")
    order = np.argsort(log_seconds)
    if not log_seconds[order[0]] <= at <= log_seconds[order[-1]]:
        return float("inf" if at < log_seconds[order[0]] else "-inf")
    return float(np.exp(np.interp(at, log_seconds[order], np.log(loss[order]))))


def frontier(results: Results, own: dict[tuple[str, float], Curve], method: str) -> Frontier:
    """own: curves over forward FLOPs. Budgets whose optimal size has no step time are skipped."""
    budgets, log_seconds, losses = [], [], []
    for budget in results.budgets:
        curve = own.get((method, budget))
        if curve is None or not curve.inside:
            continue
        size, loss = curve.optimum
        seconds = seconds_per_token(results, method, size) * budget / (3 * np.exp(size))
        if np.isfinite(seconds[0]):
            budgets.append(budget)
            log_seconds.append(np.log(seconds))
            losses.append(loss)
    if not budgets:
        return Frontier([], np.empty((1, 0)), np.empty((1, 0)))
    return Frontier(budgets, np.stack(log_seconds, axis=1), np.stack(losses, axis=1))


def frontiers(results: Results) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> training seconds and loss of its optima, budget by budget, on this machine running nothing else."""
    own = curves(results, "forward_flops")
    each = {method: frontier(results, own, method) for method in results.methods}
    return {method: (np.exp(line.log_seconds[0]), line.loss[0]) for method, line in each.items() if line.budgets}
