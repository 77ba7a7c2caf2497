"""Paired differences of two losses, with 95 % intervals and minimum detectable effects.

Differences are method minus dense, in nats/token: below 0 the method is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.interval import CONFIDENCE, Interval

if TYPE_CHECKING:  # slow to import, and a training run needs neither pandas nor scipy
    import pandas as pd

POWER = 0.80


def paired_seeds(method: Sequence[float], dense: Sequence[float]) -> Interval:
    """Mean difference of runs paired by seed (which fixes the data order), with its t interval; n counts the pairs."""
    differences = np.asarray(method, dtype=float) - np.asarray(dense, dtype=float)
    pairs = len(differences)
    if pairs < 2:
        return Interval(float(differences[0]), n=pairs, unit="seeds")
    stderr = float(differences.std(ddof=1) / np.sqrt(pairs))
    return _interval(float(differences.mean()), stderr, pairs, "seeds")


def paired_documents(method: pd.DataFrame, dense: pd.DataFrame) -> Interval | None:
    """Difference of two runs' losses on the same documents; None if the documents differ or are fewer than two.

    Both frames have `document`, `tokens` and `nats` (the document's total). The interval covers the choice of
    documents, not the training seed.
    """
    paired = _paired(method, dense)
    if paired is None:
        return None
    differences, tokens = paired
    stderr = ratio_stderr(differences, tokens)
    value = float(differences.sum() / tokens.sum())
    return Interval(value) if stderr is None else _interval(value, stderr, len(tokens), "documents")


def document_stderr(method: pd.DataFrame, dense: pd.DataFrame) -> tuple[float, int]:
    """Standard error of `paired_documents` in nats/token, and the number of documents; zeros where that is None."""
    paired = _paired(method, dense)
    stderr = ratio_stderr(*paired) if paired else None
    return (0.0, 0) if paired is None or stderr is None else (stderr, len(paired[0]))


def ratio_stderr(totals: np.ndarray, sizes: np.ndarray) -> float | None:
    """Standard error of sum(totals) / sum(sizes) over units, both of shape (n,); None for a single unit.

    The ratio estimator's (Cochran 1977, Sampling Techniques, 3rd ed., eq. 2.39 and 6.9).
    """
    n = len(totals)
    if n < 2:
        return None
    residuals = totals - float(totals.sum() / sizes.sum()) * sizes
    return float(np.sqrt(n / (n - 1) * np.sum(residuals**2)) / sizes.sum())


def minimum_detectable_effect(stderr: float, degrees: int) -> float:
    """The true difference that a two-sided 5 % t test finds with 80 % power, in the unit of `stderr`.

    Exact, by the noncentral t distribution, with the standard error taken as the true one
    (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., chapter 2).
    """
    from scipy import optimize, stats

    critical = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)

    def excess_power(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - POWER  # the other tail's share is below 1e-4

    return stderr * float(optimize.brentq(excess_power, 0.1, 2 * critical + 2))


def _paired(method: pd.DataFrame, dense: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Differences of the documents' nats and their tokens, (n,) each."""
    both = method.merge(dense, on="document", suffixes=("", "_dense"), validate="one_to_one")
    same = len(both) == len(method) == len(dense) and (both["tokens"] == both["tokens_dense"]).all()
    if not same or len(both) < 2:
        return None
    return (both["nats"] - both["nats_dense"]).to_numpy(dtype=float), both["tokens"].to_numpy(dtype=float)


def _interval(value: float, stderr: float, pairs: int, unit: str) -> Interval:
    detectable = minimum_detectable_effect(stderr, pairs - 1)
    own = Interval.from_stderr(value, stderr, pairs - 1)
    return replace(own, minimum_detectable=detectable, n=pairs, unit=unit)
