"""How often the 95 % intervals of bench.fit cover the truth, by simulation.

Points are drawn from laws L = E + A/N^alpha + B/D^beta whose optima are known, with the grids and kinds of noise of
`SCENARIOS`. Each row is the share of intervals that cover, and the share that are open and say nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bench.stats.fits import equivalents
from bench.stats.interval import Interval
from bench.stats.parabolas import fit_method

_E, _A, _B, _ALPHA, _BETA = 1.82, 482.0, 2085.4, 0.348, 0.366  # Besiroglu et al. 2024, arXiv 2404.10102
_EXPONENT = _BETA / (_ALPHA + _BETA)
_BETTER = 1.5  # the method does with its FLOPs what dense does with this many times the FLOPs
Noise = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def _gauss(sd: float) -> Noise:
    return lambda rng, shape: rng.normal(0, sd, shape)


def _outliers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0, 0.003, shape) + 0.08 * (rng.random(shape) < 0.06)


def _first_noisier(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0, 0.003, shape) * np.where(np.arange(shape[0]) == 0, 3.0, 1.0)[:, None]


@dataclass(frozen=True)
class Scenario:
    """offsets: log params of the grid from the optimum; best_seeds: runs of the best size in all."""

    budgets: np.ndarray
    offsets: np.ndarray
    noise: Noise
    best_seeds: int = 1
    truth: dict[float, tuple[float, float]] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator, times: float = 1.0) -> pd.DataFrame:
        """Points of a method that is as good as dense with `times` as many FLOPs."""
        shape = (len(self.budgets), len(self.offsets))
        log_params = np.log(best_params(times * self.budgets))[:, None] + self.offsets
        flops = np.broadcast_to(self.budgets[:, None], shape)
        params = np.exp(log_params)
        truth = law(params, times * flops / (6 * params))
        noise = self.noise(rng, shape)
        rows = [(flops, params, truth * (1 + noise))]
        if self.best_seeds > 1:
            best = (truth * (1 + noise)).argmin(axis=1)[:, None]
            more = (len(self.budgets), self.best_seeds - 1)
            own = [np.broadcast_to(np.take_along_axis(each, best, 1), more) for each in (flops, params, truth)]
            rows.append((own[0], own[1], own[2] * (1 + self.noise(rng, more))))
        flops, params, loss = (np.concatenate([np.ravel(row[place]) for row in rows]) for place in range(3))
        columns = np.stack([flops, params, flops / (6 * params), loss], axis=1)
        return pd.DataFrame(columns, columns=["budget", "params", "tokens", "loss"])


def law(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return _E + _A / params**_ALPHA + _B / tokens**_BETA


def best_params(flops: np.ndarray) -> np.ndarray:
    """Where the law is lowest at `flops` = 6 params tokens (Hoffmann et al. 2022, equation 4)."""
    return (_ALPHA * _A / (_BETA * _B) * (flops / 6) ** _BETA) ** (1 / (_ALPHA + _BETA))


def _scenarios() -> dict[str, Scenario]:
    wide, cpu = np.geomspace(1e18, 1e20, 5), np.array([1e18, 1.8e18, 3.2e18])
    uneven = np.array([-1.1, -0.6, -0.35, 0.1, 0.6, 1.0, 1.3])
    found = {}
    for sd in (0.002, 0.003):
        for budgets, sizes in ((1, 4), (2, 4), (3, 5), (4, 7), (5, 7)):
            own = np.array([1e19]) if budgets == 1 else np.geomspace(1e18, 1e20, budgets)
            found[f"{budgets} x {sizes}, {sd:.1%} noise"] = Scenario(own, np.linspace(-1, 1, sizes), _gauss(sd))
    seven = np.linspace(-1, 1, 7)
    return found | {
        "3 x 7, 1.5% noise": Scenario(cpu, uneven, _gauss(0.015)),
        "3 x 5, best size with 3 seeds, 1.5%": Scenario(cpu, np.array([-1.1, -0.6, -0.1, 0.4, 0.9]), _gauss(0.015), 3),
        "5 x 7, Student t, 2 degrees, 0.3%": Scenario(wide, seven, lambda rng, n: 0.003 * rng.standard_t(2, n)),
        "5 x 7, 6% outliers of +8%": Scenario(wide, seven, _outliers),
        "5 x 7, grid shifted by +0.9": Scenario(wide, seven + 0.9, _gauss(0.003)),
        "5 x 9, width of ±2.3": Scenario(wide, np.linspace(-2.3, 2.3, 9), _gauss(0.003)),
        "5 x 7, first budget 3 times noisier": Scenario(wide, seven, _first_noisier),
        "5 x 3, 0.3%": Scenario(wide, np.array([-0.8, 0.0, 0.8]), _gauss(0.003)),
    }


SCENARIOS = _scenarios()


def intervals(scenario: Scenario, rng: np.random.Generator) -> Iterator[tuple[str, Interval | None, float]]:
    """(quantity, its interval, the truth) of one draw."""
    dense, method = (fit_method(scenario.draw(rng, times), 1000, rng) for times in (1.0, _BETTER))
    if len(scenario.budgets) > 1:
        yield "exponent", dense.params_exponent, _EXPONENT
        yield "coefficient", dense.params_coefficient, float(best_params(np.array(1.0)))
    for optimum in dense.optima:
        params = best_params(np.array(optimum.flops))
        counts = optimum.status == "ok"
        yield "optimal params", optimum.params if counts else None, float(params)
        if counts:
            yield "loss", optimum.loss, float(law(params, optimum.flops / (6 * params)))
    for each in equivalents(method, dense):
        yield "dense-equivalent", each.times, _BETTER


def coverage(scenario: Scenario, draws: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Quantity -> (share of the intervals that cover the truth, share that are open at an end or missing)."""
    covered, open_ = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
    for _ in range(draws):
        for name, own, truth in intervals(scenario, rng):
            ends = own.ends if own else None
            open_[name].append(ends is None or not np.all(np.isfinite(ends)))
            if ends is not None:
                covered[name].append(ends[0] <= truth <= ends[1])
    return {
        name: (float(np.mean(covered[name])) if covered[name] else float("nan"), float(np.mean(open_[name])))
        for name in open_
    }


def table(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    """A row per scenario; at most a thousand draws of each, since a draw fits two methods."""
    draws = min(draws, 1000)
    names = ["exponent", "coefficient", "loss", "dense-equivalent", "optimal params"]
    rows = []
    for name, scenario in SCENARIOS.items():
        own = coverage(scenario, draws, rng)
        cells = [f"{100 * own[each][0]:.1f} ({100 * own[each][1]:.0f})" if each in own else "–" for each in names]
        rows.append([name, *cells])
    caption = (
        f"Per cent of 95 % intervals that cover the truth, over {draws} draws; in brackets, per cent that are open."
    )
    return caption, ["budgets x sizes", *names], rows
