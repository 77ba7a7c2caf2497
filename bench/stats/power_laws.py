"""A power law through optima that are known to different accuracy: a weighted straight line in logs, with t intervals.

Each optimum counts with its precision, so that one hardly curved parabola does not void the law. If the optima scatter
about the line by more than their standard errors explain, these grow accordingly (Birge 1932, Phys. Rev. 40, 207).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.stats.interval import CONFIDENCE, Interval


@dataclass(frozen=True)
class PowerLaw:
    """log value = level + exponent (log flops - centre); level and exponent are uncorrelated at `centre`.

    level_stderr, exponent_stderr: NaN if unknown. degrees: of freedom behind them.
    """

    level: float
    exponent: float
    centre: float
    level_stderr: float
    exponent_stderr: float
    degrees: int

    @property
    def slope(self) -> Interval:
        """The exponent, 95 % interval."""
        return self._interval(self.exponent, self.exponent_stderr)

    @property
    def coefficient(self) -> Interval:
        """The value at one FLOP."""
        return self.at(1.0)

    def at(self, flops: float) -> Interval:
        """The value at `flops`, with a 95 % interval; infinite ends are those too large for a float."""
        away = np.log(flops) - self.centre
        log = self._interval(self.level + self.exponent * away, np.hypot(self.level_stderr, self.exponent_stderr * away))
        with np.errstate(over="ignore"):
            return Interval(*(None if end is None else float(np.exp(end)) for end in (log.value, log.low, log.high)))

    def _interval(self, value: float, stderr: float) -> Interval:
        if self.degrees < 1 or not np.isfinite(stderr):
            return Interval(value)
        return Interval.from_stderr(value, float(stderr), self.degrees, CONFIDENCE)


def power_law(log_flops: np.ndarray, log_values: np.ndarray, stderr: np.ndarray, degrees: int) -> PowerLaw | None:
    """The line through (log_flops, log_values), (B,); None below two budgets.

    stderr: (B,) standard errors of log_values from `degrees` degrees of freedom. If these are 0, every budget counts
    alike and the scatter about the line is the only evidence, with B - 2 degrees.
    """
    if len(log_flops) < 2:
        return None
    known = degrees > 0 and bool(np.all(stderr > 0))
    weights = 1 / stderr**2 if known else np.ones_like(log_flops)
    centre = float(np.average(log_flops, weights=weights))
    away = log_flops - centre
    level = float(np.average(log_values, weights=weights))
    spread = float(weights @ away**2)
    exponent = float(weights @ (away * log_values)) / spread
    free = len(log_flops) - 2
    left = log_values - level - exponent * away
    scatter = float(weights @ left**2) / free if free else np.nan
    variance = np.fmax(1.0, scatter) if known else scatter
    own = [float(np.sqrt(variance / total)) for total in (weights.sum(), spread)]
    return PowerLaw(level, exponent, centre, own[0], own[1], degrees if known else free)


def t_draws(count: int, budgets: int, degrees: int, rng: np.random.Generator) -> np.ndarray:
    """(count, budgets) standard errors by which estimates with a common estimate of the noise are off."""
    common = np.sqrt(degrees / rng.chisquare(degrees, (count, 1)))
    return rng.standard_normal((count, budgets)) * common


def t_quantile(degrees: int) -> float:
    """Half-width of a 95 % interval in standard errors."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
