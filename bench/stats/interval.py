"""A value and its confidence interval: the one type in which every uncertain number travels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, 95 % unless made otherwise.

    `low` and `high` are None if they cannot be estimated, and infinite if that end is open.
    minimum_detectable: the true effect that a two-sided 5 % test finds with 80 % power, in the unit of `value`.
    p: two-sided. n: the number of independent units (seeds, documents, studies, rounds) that `unit` names.
    stderr, degrees: of the t interval, where it is one; what tests and pooling need.
    """

    value: float
    low: float | None = None
    high: float | None = None
    minimum_detectable: float | None = None
    p: float | None = None
    n: int | None = None
    unit: str = ""  # seeds | documents | rounds | ...
    stderr: float | None = None
    degrees: float | None = None

    @classmethod
    def from_draws(cls, value: float, draws: np.ndarray | None) -> Interval:
        """Percentile bootstrap: `draws` are the estimates of the resamples, shape (R,).

        NaNs count as beyond both ends, so that many of them leave no interval.
        """
        if draws is None or not len(draws):
            return cls(float(value))
        import numpy as np  # the gate, which only compares numbers, does not import it

        tail = 100 * (1 - CONFIDENCE) / 2
        low = np.percentile(np.where(np.isnan(draws), -np.inf, draws), tail, method="higher")
        high = np.percentile(np.where(np.isnan(draws), np.inf, draws), 100 - tail, method="lower")
        if np.isnan(draws).any() and not (np.isfinite(low) and np.isfinite(high)):
            return cls(float(value))
        return cls(float(value), float(low), float(high))

    @classmethod
    def from_stderr(cls, value: float, stderr: float, degrees: float, confidence: float = CONFIDENCE) -> Interval:
        """Student's t interval of a standard error with `degrees` degrees of freedom."""
        from scipy import special  # not loaded by the gate, which only compares numbers

        half = float(special.stdtrit(degrees, (1 + confidence) / 2)) * stderr
        return cls(value, value - half, value + half, stderr=stderr, degrees=degrees)

    @classmethod
    def of_median(cls, samples: Sequence[float]) -> Interval:
        """Median with its distribution-free interval: from order statistics by their binomial coverage.

        With fewer than 6 samples no such 95 % interval exists, and the range is given instead.
        """
        ordered, n = sorted(samples), len(samples)
        tail, rank = 0.0, 0
        for below in range(n // 2):
            tail += math.comb(n, below) / 2**n
            if 2 * tail > 1 - CONFIDENCE:
                break
            rank = below
        return cls(statistics.median(ordered), ordered[rank], ordered[n - 1 - rank], n=n)

    @property
    def ends(self) -> tuple[float, float] | None:
        """`low` and `high`, or None if there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def below(self, limit: float) -> bool | None:
        """True: the whole interval is below `limit`; False: all of it is above; None: neither, or no interval."""
        if self.low is None or self.high is None:
            return None
        return True if self.high < limit else False if self.low > limit else None

    def divided_by(self, whole: float) -> Interval:
        """As a share of a known value above 0."""

        def share(number: float | None) -> float | None:
            return number / whole if number is not None else None

        return replace(
            self, value=self.value / whole, low=share(self.low), high=share(self.high),
            minimum_detectable=share(self.minimum_detectable), stderr=share(self.stderr),
        )  # fmt: skip
