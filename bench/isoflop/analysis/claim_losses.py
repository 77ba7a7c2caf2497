"""Evidence on loss at equal training FLOPs: against dense, against MoE, and in FLOPs saved."""

from __future__ import annotations

from bench.formats import percent, power, signed, times
from bench.isoflop.analysis.contracts import Comparison
from bench.isoflop.analysis.differences import best_difference, sum_of_gains
from bench.isoflop.analysis.edges import below
from bench.isoflop.analysis.evidence import Evidence, beyond, interval
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.stats.fits import Fits
from bench.stats.parabolas import Estimate

_SAVED = 0.4
PARTS = ("moe", "mod")


def against_dense(results: Results, compared: Comparison, limit: float, relative: bool = False) -> Evidence:
    """Loss minus dense's, nats a token or over dense's loss: by curves and by best shapes, which must agree."""
    where = f"at {power(compared.budget)} FLOPs"
    seeds = best_difference(results, compared.method, REFERENCE, compared.budget)
    if compared.value is None or compared.dense_loss is None or seeds is None:
        return Evidence(f"{where}: {compared.why or 'not run with several seeds'}", None)
    curve: Estimate = compared.value
    if relative:
        dense = results.best(REFERENCE, compared.budget)["loss"].mean()
        curve, seeds = curve.over(compared.dense_loss), seeds.over(float(dense))
    write = percent if relative else signed
    told = f"{where} by curves {interval(curve, write)}, by best shapes {interval(seeds, write)}"
    by_curves = beyond(curve, limit)
    agree = by_curves == below(results, compared.budget, [compared.method], [REFERENCE], seeds, limit)
    return Evidence(told if relative else f"{told} nats", by_curves if agree else None)


def saved_compute(results: Results, fits: Fits, method: str) -> list[Evidence]:
    """FLOPs dense needs for the same loss: 1 / 0.6 times as many where 40 % are saved.

    Where that is beyond dense's own optima it is an extrapolation, and so may be an end: told, and decides nothing.
    """
    if method not in results.methods:
        return []
    equivalents = fits.equivalents.get(method, [])
    without = [budget for budget in results.budgets if budget not in {results.budget_of(e.flops) for e in equivalents}]
    found = [Evidence(f"at {power(budget)} FLOPs: no optimum on both sides", None) for budget in without]
    for each in equivalents:
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
    """MoDE minus MoE and minus MoD: better than both agrees at a budget, worse than one contradicts."""
    mode = mode_of(results)
    if mode is None or not set(PARTS) <= set(results.methods):
        return []
    found = []
    for budget in results.budgets:
        values = {other: best_difference(results, mode, other, budget) for other in PARTS}
        answers = {below(results, budget, [mode], [other], value) for other, value in values.items()}
        each = [f"minus {other} {interval(value, signed)}" for other, value in values.items() if value is not None]
        if each:
            speaks = False if False in answers else None if None in answers else True
            found.append(Evidence(f"{mode} at {power(budget)} FLOPs {' and '.join(each)} nats", speaks))
    return found


def more_than_the_sum(results: Results) -> list[Evidence]:
    """MoDE's loss minus dense's, minus the sum of what MoE's and MoD's are: at most 0 where gains add up."""
    found = []
    mode = mode_of(results)
    for budget in results.budgets:
        value = sum_of_gains(results, mode, budget) if mode else None
        if mode and value is not None:
            told = f"gain of {mode} minus the sum at {power(budget)} FLOPs {interval(value, signed)} nats"
            found.append(Evidence(told, below(results, budget, [mode, REFERENCE], PARTS, value)))
    return found
