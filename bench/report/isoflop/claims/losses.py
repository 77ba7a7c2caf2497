"""Evidence on loss at equal training FLOPs: against dense, against MoE, and in FLOPs saved."""

from __future__ import annotations

from bench.fit.fits import Fits
from bench.fit.parabolas import Estimate
from bench.report.formats import percent, power, signed, times
from bench.report.isoflop.claims.evidence import Evidence, beyond, interval
from bench.report.isoflop.comparisons import Comparison
from bench.report.isoflop.results import Results
from bench.report.isoflop.seeds import best_difference, sum_of_gains

_SAVED = 0.4
PARTS = ("moe", "mod")


def difference_from_dense(compared: Comparison, below: float) -> Evidence:
    """Loss minus dense's, nats a token."""
    if compared.value is None:
        return Evidence(f"at {power(compared.budget)} FLOPs: {compared.why}", None)
    told = f"at {power(compared.budget)} FLOPs {interval(compared.value, signed)} nats"
    return Evidence(told, beyond(compared.value, below))


def share_of_dense(compared: Comparison, below: float) -> Evidence:
    """The same over dense's loss."""
    if compared.value is None or compared.dense_loss is None:
        return Evidence(f"at {power(compared.budget)} FLOPs: {compared.why}", None)
    value, loss = compared.value, compared.dense_loss
    ends = (end / loss if end is not None else None for end in (value.low, value.high))
    share = Estimate(value.value / loss, *ends)
    return Evidence(f"at {power(compared.budget)} FLOPs {interval(share, percent)}", beyond(share, below))


def saved_compute(fits: Fits, method: str) -> list[Evidence]:
    """FLOPs dense needs for the same loss: 1 / 0.6 times as many where 40 % are saved.

    Where that is beyond dense's own optima it is an extrapolation, and so may be an end: told, and decides nothing.
    """
    found = []
    for each in fits.equivalents.get(method, []):
        told = f"at {power(each.flops)} FLOPs dense needs {interval(each.times, times)} as many"
        under = beyond(each.measured, 1 / (1 - _SAVED))
        speaks = None if under is None or each.extrapolated else not under
        counts = "does not count" if each.extrapolated else "that end does not count"
        found.append(Evidence(f"{told} ({each.warning}: {counts})" if each.warning else told, speaks))
    return found


def mode_of(results: Results) -> str | None:
    """The study's MoDE."""
    return next((name for name in results.methods if name.startswith("mode")), None)


def better_than_parts(results: Results) -> list[Evidence]:
    """MoDE minus MoE and minus MoD, budget by budget."""
    found = []
    mode = mode_of(results)
    for budget in results.budgets:
        for other in PARTS:
            if mode is None or other not in results.methods:
                continue
            value = best_difference(results, mode, other, budget)
            if value is not None:
                told = f"{mode} minus {other} at {power(budget)} FLOPs {interval(value, signed)} nats"
                found.append(Evidence(told, beyond(value, 0.0)))
    return found


def more_than_the_sum(results: Results) -> list[Evidence]:
    """MoDE's loss minus dense's, minus the sum of what MoE's and MoD's are: at most 0 where gains add up."""
    found = []
    mode = mode_of(results)
    for budget in results.budgets:
        value = sum_of_gains(results, mode, budget) if mode else None
        if value is not None:
            told = f"gain of {mode} minus the sum at {power(budget)} FLOPs {interval(value, signed)} nats"
            found.append(Evidence(told, beyond(value, 0.0)))
    return found
