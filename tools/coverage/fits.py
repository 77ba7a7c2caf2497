"""How often the 95 % intervals of bench.fit cover the truth, by simulation.

Points are drawn from a law L = E + A/N^alpha + B/D^beta whose optima are known, with the grids and kinds of noise of
`SCENARIOS`. Each row is the share of intervals that cover, and the share that are open. Chunks of draws are independent
of each other, so a run that was stopped goes on where it was (`--kept FILE`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from bench.stats.fits import equivalents
from bench.stats.interval import Interval
from bench.stats.parabolas import fit_method
from bench.stats.parametric import fit_parametric

_E, _A, _B, _ALPHA, _BETA = 1.82, 482.0, 2085.4, 0.348, 0.366  # Besiroglu et al. 2024, arXiv 2404.10102
_EXPONENT = _BETA / (_ALPHA + _BETA)
CHUNK = 50  # draws
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


Found = Iterator[tuple[str, Interval | None, float]]  # (quantity, its interval, the truth) of one draw


def parabolas(scenario: Scenario, rng: np.random.Generator) -> Found:
    """Approach 2, and dense-equivalent compute."""
    dense, method = (fit_method(scenario.draw(rng, times), 1000, rng) for times in (1.0, _BETTER))
    if len(scenario.budgets) > 1:
        yield "exponent", dense.params_exponent, _EXPONENT
        yield "coefficient", dense.params_coefficient, float(best_params(np.array(1.0)))
        middle = np.exp(np.log(scenario.budgets).mean())
        law_there = dense.params_law.at(float(middle)) if dense.params_law else None
        yield "law, mid-budget", law_there, float(best_params(middle))
    for optimum in dense.optima:
        params = best_params(np.array(optimum.flops))
        counts = optimum.status == "ok"
        yield "optimal params", optimum.params if counts else None, float(params)
        if counts:
            yield "loss", optimum.loss, float(law(params, optimum.flops / (6 * params)))
    for each in equivalents(method, dense):
        yield "dense-equivalent", each.times, _BETTER


def parametric(scenario: Scenario, rng: np.random.Generator) -> Found:
    """Approach 3, and its prediction at ten times the largest budget; nothing where there is no law."""
    points = scenario.draw(rng)
    columns = [points[name].to_numpy() for name in ("params", "tokens", "loss")]
    fitted = fit_parametric(columns[0], columns[1], columns[2], rng)
    if isinstance(fitted, str):
        return
    for name, truth in (("E", _E), ("A", _A), ("B", _B), ("alpha", _ALPHA), ("beta", _BETA)):
        yield name, getattr(fitted, name), truth
    yield "exponent", fitted.params_exponent, _EXPONENT
    flops = 10 * float(scenario.budgets[-1])
    params, ahead = float(best_params(np.array(flops))), fitted.at(flops)
    yield "params, 10 x", ahead["params"], params
    yield "loss, 10 x", ahead["loss"], float(law(np.array(params), np.array(flops / (6 * params))))


@dataclass(frozen=True)
class Count:
    """Of the intervals for one quantity in a chunk of draws: all, those closed at both ends, those that cover."""

    scenario: str
    chunk: int
    quantity: str
    intervals: int
    closed: int
    ends: int  # that have two ends, of which open ones count as infinite
    covered: int


def count(name: str, chunk: int, found: Callable[[Scenario, np.random.Generator], Found]) -> list[Count]:
    """The chunk of that number, whose draws depend on nothing else."""
    rng = np.random.default_rng([list(SCENARIOS).index(name), chunk])
    counts = defaultdict[str, list[int]](lambda: [0, 0, 0, 0])
    for _ in range(CHUNK):
        for quantity, own, truth in found(SCENARIOS[name], rng):
            ends = own.ends if own else None
            closed = ends is not None and bool(np.all(np.isfinite(ends)))
            covered = ends is not None and ends[0] <= truth <= ends[1]
            counts[quantity] = [
                a + b for a, b in zip(counts[quantity], (1, closed, ends is not None, covered), strict=True)
            ]
    return [Count(name, chunk, quantity, *own) for quantity, own in counts.items()]


def simulate(draws: int, kept: Path | None, names: Sequence[str], found: Callable) -> pd.DataFrame:
    """Counts of every chunk of `draws` draws of each scenario; those in the file `kept` are not repeated."""
    done = pd.read_csv(kept) if kept and kept.exists() else pd.DataFrame(columns=[each.name for each in fields(Count)])
    for chunk in range(max(1, draws // CHUNK)):
        for name in names:
            if not ((done["scenario"] == name) & (done["chunk"] == chunk)).any():
                own = pd.DataFrame(map(asdict, count(name, chunk, found)))
                if kept:
                    own.to_csv(kept, mode="a", header=not kept.exists(), index=False)
                done = pd.concat([done, own]) if len(done) else own
    return done[done["chunk"] < max(1, draws // CHUNK)]


def table(draws: int, kept: Path | None = None) -> tuple[str, list[str], list[list[str]]]:
    """Approach 2, a row per scenario, at most a thousand draws of each."""
    columns = ["exponent", "coefficient", "law, mid-budget", "loss", "dense-equivalent", "optimal params"]
    return _table("approach 2", simulate(min(draws, 1000), kept, list(SCENARIOS), parabolas), columns)


def law_table(draws: int, kept: Path | None = None) -> tuple[str, list[str], list[list[str]]]:
    """Approach 3, a row per scenario with enough points for it."""
    names = [name for name, scenario in SCENARIOS.items() if len(scenario.budgets) > 2]
    columns = ["E", "A", "B", "alpha", "beta", "exponent", "params, 10 x", "loss, 10 x"]
    return _table("approach 3", simulate(min(draws, 1000), kept, names, parametric), columns)


def _table(approach: str, counts: pd.DataFrame, columns: list[str]) -> tuple[str, list[str], list[list[str]]]:
    sums = counts.groupby(["scenario", "quantity"])[["intervals", "closed", "ends", "covered"]].sum()
    covered, open_ = 100 * sums["covered"] / sums["ends"], 100 * (1 - sums["closed"] / sums["intervals"])
    rows = []
    for name in SCENARIOS:
        if name in sums.index.get_level_values(0):
            draws = CHUNK * counts.loc[counts["scenario"] == name, "chunk"].nunique()
            cells = [
                _cell(covered[name, each], open_[name, each]) if (name, each) in sums.index else "–" for each in columns
            ]
            rows.append([name, f"{draws:,}", *cells])
    ends = [[f"{of(covered.xs(each, level=1)):.1f}" for each in columns] for of in (np.nanmin, np.nanmean)]
    open_means = [f"({np.mean(open_.xs(each, level=1)):.0f})" for each in columns]
    rows += [["worst", "", *ends[0]], ["mean", "", *(f"{a} {b}" for a, b in zip(ends[1], open_means, strict=True))]]
    caption = f"Per cent of 95 % intervals of {approach} that cover the truth; in brackets, per cent that are open."
    return caption, ["budgets x sizes", "draws", *columns], rows


def _cell(covered: float, open_: float) -> str:
    return f"{covered:.1f} ({open_:.0f})" if np.isfinite(covered) else f"– ({open_:.0f})"
