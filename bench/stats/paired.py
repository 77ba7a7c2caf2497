"""Paired differences of two losses, their 95 % intervals, and what could have been detected.

Differences are method minus dense, in nats a token: below 0 the method is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.80


@dataclass(frozen=True)
class Estimate:
    """A mean difference. `low`, `high` and `detectable` are None where one pair leaves nothing to estimate from."""

    value: float
    low: float | None
    high: float | None
    detectable: float | None
    pairs: int
    over: str  # seeds | documents

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def paired_seeds(method: Sequence[float], dense: Sequence[float]) -> Estimate:
    """Mean difference of runs paired by seed (which fixes the data order), with its t interval."""
    differences = np.asarray(method, dtype=float) - np.asarray(dense, dtype=float)
    pairs = len(differences)
    if pairs < 2:
        return Estimate(float(differences[0]), None, None, None, pairs, "seeds")
    stderr = float(differences.std(ddof=1) / np.sqrt(pairs))
    return _estimate(float(differences.mean()), stderr, pairs, "seeds")


def paired_documents(method: pd.DataFrame, dense: pd.DataFrame) -> Estimate | None:
    """Difference of two runs' losses on the same documents; None where they are not the same documents.

    Both frames have `document`, `tokens` and `nats` (the document's total). The loss is a ratio, nats over
    tokens, so its standard error is the ratio estimator's (Cochran 1977, Sampling Techniques, 3rd ed., eq. 6.9)
    applied to the differences of the paired documents. It knows nothing of the luck of a training seed.
    """
    both = method.merge(dense, on="document", suffixes=("", "_dense"), validate="one_to_one")
    same = len(both) == len(method) == len(dense) and (both["tokens"] == both["tokens_dense"]).all()
    if not same or len(both) < 2:
        return None
    tokens = both["tokens"].to_numpy(dtype=float)
    differences = (both["nats"] - both["nats_dense"]).to_numpy(dtype=float)
    value = float(differences.sum() / tokens.sum())
    residuals = differences - value * tokens
    pairs = len(both)
    stderr = float(np.sqrt(pairs / (pairs - 1) * np.sum(residuals**2)) / tokens.sum())
    return _estimate(value, stderr, pairs, "documents")


def detectable_difference(stderr: float, degrees: int) -> float:
    """The true difference that a two-sided 5 % t test finds with 80 % probability, in the unit of `stderr`.

    Exact, by the noncentral t distribution, with the standard error taken as the true one
    (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., chapter 2).
    """
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)

    def excess_power(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - POWER  # the other tail's share is below 1e-4

    return stderr * float(optimize.brentq(excess_power, 0.1, 2 * critical + 2))


def _estimate(value: float, stderr: float, pairs: int, over: str) -> Estimate:
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1)) * stderr
    return Estimate(value, value - half, value + half, detectable_difference(stderr, pairs - 1), pairs, over)
