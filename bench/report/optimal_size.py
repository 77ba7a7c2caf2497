"""How far a model is from the size that makes the most of its training FLOPs, by the project's own law.

A model far above that size sees too few tokens, so whatever costs fewer FLOPs per token looks better than it is, and
below it the reverse. The law is dense's, in active parameters: the best shapes of MoE, MoD and MoDE in the same study
are within a factor of two of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.formats import decimal, power, times
from bench.records.record import Record

# Optimal parameters = COEFFICIENT x FLOPs^EXPONENT: dense, approach 2 of reports/isoflop_cpu/fit.md.
COEFFICIENT, EXPONENT = 0.0503, 0.486
FITTED = (1e12, 3.2e12)  # training FLOPs of the budgets behind it
SOURCE = f"dense law of results/isoflop_cpu, fitted at {power(FITTED[0])} to {power(FITTED[1])} FLOPs"
FAR = 3.0  # a side further off than this factor is named in the verdict


def optimal_params(flops: float) -> float:
    """Compute-optimal parameters of a model trained with `flops`; an extrapolation outside `FITTED`."""
    return COEFFICIENT * flops**EXPONENT


def tokens_per_param(record: Record) -> float:
    """Training tokens per active parameter."""
    return record.training.tokens / record.model.params_active


def times_optimal(record: Record) -> float:
    """Active parameters over the compute-optimal number for the run's training FLOPs."""
    return record.model.params_active / optimal_params(record.flops.train_total)


def size_words(record: Record) -> str:
    """Tokens per active parameter and the size over the optimal one: `2.50 (1.10×)`."""
    return f"{decimal(tokens_per_param(record), 2)} ({times(times_optimal(record))})"


def size_caveat(sides: Mapping[str, Record]) -> str | None:
    """A sentence that names the sides of a comparison off their compute-optimal size by more than `FAR`."""
    ratios = {label: times_optimal(record) for label, record in sides.items()}
    far = {label: ratio for label, ratio in ratios.items() if not 1 / FAR <= ratio <= FAR}
    if not far:
        return None
    extrapolated = any(not FITTED[0] <= record.flops.train_total <= FITTED[1] for record in sides.values())
    law = ", by an extrapolated law" * extrapolated
    named = ", ".join(f"{label} {times(ratio)}" for label, ratio in far.items())
    favoured = ""  # unless some sides are too large and others too small
    if min(far.values()) > 1 or max(far.values()) < 1:
        favoured = f", which favours {'fewer' if min(far.values()) > 1 else 'more'} FLOPs/token"
    return f"Far from the compute-optimal size{law}: {named}{favoured}"
