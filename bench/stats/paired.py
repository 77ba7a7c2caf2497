"""Paired differences of two losses, their 95 % intervals, and the minimum detectable effects.

Differences are method minus dense, in nats/token: below 0 the method is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from bench.stats.interval import CONFIDENCE, Interval

POWER = 0.80


def paired_seeds(method: Sequence[float], dense: Sequence[float]) -> Interval:
    """Mean difference of runs paired by seed (which fixes the data order), with its t interval."""
    differences = np.asarray(method, dtype=float) - np.asarray(dense, dtype=float)
    n = len(differences)
    if n < 2:
        return Interval(float(differences[0]), n=n, unit="seeds")
    return _interval(float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n)), n, "seeds")


def paired_documents(method: pd.DataFrame, dense: pd.DataFrame) -> Interval | None:
    """Difference of two runs' losses on the same documents; None where they are not the same documents.

    Both frames have `document`, `tokens` and `nats` (the document's total). The loss is a ratio, nats over
    tokens, so its standard error is the ratio estimator's (Cochran 1977, Sampling Techniques, 3rd ed., eq. 6.9)
    applied to the differences of the paired documents. It does not cover the variance between training seeds.
    """
    both = method.merge(dense, on="document", suffixes=("", "_dense"), validate="one_to_one")
    same = len(both) == len(method) == len(dense) and (both["tokens"] == both["tokens_dense"]).all()
    if not same or len(both) < 2:
        return None
    tokens = both["tokens"].to_numpy(dtype=float)
    differences = (both["nats"] - both["nats_dense"]).to_numpy(dtype=float)
    value = float(differences.sum() / tokens.sum())
    residuals = differences - value * tokens
    n = len(both)
    stderr = float(np.sqrt(n / (n - 1) * np.sum(residuals**2)) / tokens.sum())
    return _interval(value, stderr, n, "documents")


def detectable_difference(stderr: float, degrees: int) -> float:
    """The true difference that a two-sided 5 % t test finds with 80 % probability, in the unit of `stderr`.

    Exact, by the noncentral t distribution, with the standard error taken as the true one
    (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., chapter 2).
    """
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)

    def excess_power(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - POWER  # the other tail's share is below 1e-4

    return stderr * float(optimize.brentq(excess_power, 0.1, 2 * critical + 2))


def _interval(value: float, stderr: float, n: int, unit: str) -> Interval:
    detectable = detectable_difference(stderr, n - 1)
    return replace(Interval.from_stderr(value, stderr, n - 1), minimum_detectable=detectable, n=n, unit=unit)
