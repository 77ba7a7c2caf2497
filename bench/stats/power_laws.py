"""A power law through optima that are known to different accuracy: a weighted straight line in logs, with t intervals.

Each optimum counts with its precision, so that one hardly curved parabola does not void the law. If the optima scatter
about the line by more than their standard errors explain, these grow accordingly (Birge 1932, Phys. Rev. 40, 207).
Shifts that the optima share, because losses are not parabolas, do not average out over budgets: they move the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.stats.interval import CONFIDENCE, Interval


@dataclass(frozen=True)
class PowerLaw:
    """log value = level + exponent (log flops - centre).

    covariance: of level and exponent, NaN if unknown. degrees: of freedom behind it.
    """

    level: float
    exponent: float
    centre: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    degrees: int

    @property
    def slope(self) -> Interval:
        """The exponent, 95 % interval."""
        return self._interval(self.exponent, (0.0, 1.0))

    @property
    def coefficient(self) -> Interval:
        """The value at one FLOP."""
        return self.at(1.0)

    def at(self, flops: float) -> Interval:
        """The value at `flops`, with a 95 % interval; infinite ends are those too large for a float."""
        away = np.log(flops) - self.centre
        log = self._interval(self.level + self.exponent * away, (1.0, away))
        with np.errstate(over="ignore"):
            low, high = (None if end is None else float(np.exp(end)) for end in (log.low, log.high))
            return Interval(float(np.exp(log.value)), low, high)

    def _interval(self, value: float, direction: tuple[float, float]) -> Interval:
        """Of a value that moves by `direction` times the errors of level and exponent."""
        variance = float(np.array(direction) @ np.array(self.covariance) @ np.array(direction))
        if self.degrees < 1 or not np.isfinite(variance):
            return Interval(value)
        half = t_quantile(self.degrees) * float(np.sqrt(variance))
        return Interval(value, value - half, value + half)


def power_law(
    log_flops: np.ndarray, log_values: np.ndarray, stderr: np.ndarray, shift: np.ndarray, degrees: int
) -> PowerLaw | None:
    """The line through (log_flops, log_values), (B,); None below two budgets.

    stderr: (B,) standard errors of log_values from `degrees` degrees of freedom. If these are 0, every budget counts
    alike and the scatter about the line is the only evidence, with B - 2 degrees. shift: (B,) common errors of
    log_values, with their signs; all of them may apply, or none.
    """
    if len(log_flops) < 2:
        return None
    free = len(log_flops) - 2
    known = degrees > 0 and bool(np.all(stderr > 0))
    if not known:
        stderr, shift = np.ones_like(log_flops), np.zeros_like(log_flops)
    weights = 1 / (stderr**2 + shift**2)
    centre = float(np.average(log_flops, weights=weights))
    away = log_flops - centre
    spread = float(weights @ away**2)
    by_value = np.stack([weights / weights.sum(), weights * away / spread])  # level and exponent, linear in the values
    level, exponent = by_value @ log_values
    left = log_values - level - exponent * away
    explained = weights * stderr**2 @ (1 - by_value[0] - by_value[1] * away)
    scatter = float(weights @ left**2) / float(explained) if free else np.nan
    variance = np.fmax(1.0, scatter) if known else scatter
    covariance = variance * (by_value * stderr**2) @ by_value.T + np.outer(by_value @ shift, by_value @ shift)
    rows = [tuple(row) for row in covariance.tolist()]
    return PowerLaw(float(level), float(exponent), centre, (rows[0], rows[1]), degrees if known else free)


def t_draws(count: int, budgets: int, degrees: int, rng: np.random.Generator) -> np.ndarray:
    """(count, budgets) standard errors by which estimates with a common estimate of the noise are off."""
    common = np.sqrt(degrees / rng.chisquare(degrees, (count, 1)))
    return rng.standard_normal((count, budgets)) * common


def t_quantile(degrees: int) -> float:
    """Half-width of a 95 % interval in standard errors."""
    return float(special.stdtrit(degrees, (1 + CONFIDENCE) / 2))
