"""How often each 95 % interval of `bench.stats` covers the truth, 0 throughout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench.stats.difference import Source, seed_difference
from bench.stats.interval import Interval
from bench.stats.pooling import pool_budgets, pool_studies

Draw = Callable[[np.random.Generator], Interval]
DEGREES = 10  # effective, of the simulated validation documents


def seeds(own: int, dense: int, ratio: float = 1.0, heavy: bool = False, documents: float = 0.0) -> Draw:
    """A method's seeds against dense's; its standard deviation is `ratio` times dense's, which is 1.

    heavy: Student's t with 4 degrees instead of the normal. documents: their share of dense's variance.
    """

    def draw(rng: np.random.Generator) -> Interval:
        noise = (lambda size: rng.standard_t(4, size)) if heavy else rng.standard_normal
        luck = math.sqrt(documents) * rng.standard_normal()
        source = Source(documents * rng.chisquare(DEGREES) / DEGREES, DEGREES) if documents else None
        return seed_difference([list(ratio * noise(own) + luck)], [list(noise(dense))], source)

    return draw


def budgets(number: int, each: int) -> Draw:
    """Budgets with `each` seeds a side, the standard deviation of each half as large again as that before."""

    def draw(rng: np.random.Generator) -> Interval:
        return pool_budgets([seeds(each, each)(rng).divided_by(1.5**-place) for place in range(number)])

    return draw


def studies(number: int, between: float) -> Draw:
    """Studies of five seeds a side, which differ by `between` times the standard error of one."""

    def draw(rng: np.random.Generator) -> Interval:
        shifts = between * math.sqrt(2 / 5) * rng.standard_normal(number)
        samples = [(rng.standard_normal(5) + shift, rng.standard_normal(5)) for shift in shifts]
        return pool_studies([seed_difference([list(own)], [list(dense)]) for own, dense in samples]).effect

    return draw


SCENARIOS: dict[str, Draw] = {
    "seeds, 2 against 2": seeds(2, 2),
    "seeds, 3 against 3": seeds(3, 3),
    "seeds, 3 against 3, four times the standard deviation": seeds(3, 3, 4.0),
    "seeds, 3 against 3, heavy tails (t, 4 degrees)": seeds(3, 3, heavy=True),
    "seeds, 3 against 8": seeds(3, 8),
    "seeds, 5 against 5": seeds(5, 5),
    "seeds, 8 against 8": seeds(8, 8),
    "seeds and documents, 3 against 3, documents 5 % of a run’s variance": seeds(3, 3, documents=0.05),
    "seeds and documents, 3 against 3, documents as large": seeds(3, 3, documents=1.0),
    "budgets, 3 of 3 seeds": budgets(3, 3),
    "budgets, 5 of 3 seeds": budgets(5, 3),
    "budgets, 3 of 8 seeds": budgets(3, 8),
    "studies, 2, no difference between them": studies(2, 0.0),
    "studies, 2, differing by one standard error": studies(2, 1.0),
    "studies, 3, no difference between them": studies(3, 0.0),
    "studies, 3, differing by one standard error": studies(3, 1.0),
    "studies, 5, differing by two standard errors": studies(5, 2.0),
    "median of 6": lambda rng: Interval.of_median(list(rng.standard_exponential(6) - math.log(2))),
    "median of 20": lambda rng: Interval.of_median(list(rng.standard_exponential(20) - math.log(2))),
}


def covers(interval: Interval, truth: float) -> bool:
    """Whether there is an interval and it holds `truth`."""
    return interval.ends is not None and interval.ends[0] <= truth <= interval.ends[1]


def table(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for name, draw in SCENARIOS.items():
        found = [draw(rng) for _ in range(draws)]
        covered = np.mean(
            [each.low is not None and each.high is not None and each.low <= 0 <= each.high for each in found]
        )
        rows.append([name, f"{100 * covered:.1f} %"])
    return f"Coverage of 95 % intervals, {draws:,} draws each.", ["interval", "coverage"], rows
