"""The operating characteristic of the rule: which verdicts come out at a known difference.

The loss is 1, so numbers are shares of it. One run has a standard deviation over seeds of 0.7 %, that of the dense and
MoD runs of results/default; documents add 5 % of its variance.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.formats import percent
from bench.records.packed import find_records
from bench.records.record import load_record
from bench.stats.difference import Source, seed_difference
from bench.stats.interval import Interval
from bench.stats.pooling import pool_budgets
from bench.stats.verdict import SMALLEST_EFFECT, Verdict, decide
from tools.coverage.intervals import DEGREES, covers

SEED, DOCUMENTS = 0.007, 0.05
EFFECTS = (0.0, -0.005, -0.01, -0.02)
SEEDS = (2, 3, 5, 8)
BUDGETS = 3


def difference(rng: np.random.Generator, effect: float, seeds: int, budgets: int = 1) -> Interval:
    """A method `effect` above dense, both with `seeds` runs at each of `budgets`, on the same documents."""
    known = SEED**2 * DOCUMENTS
    luck = math.sqrt(known) * rng.standard_normal()
    documents = Source(known * rng.chisquare(DEGREES) / DEGREES, DEGREES)
    runs = SEED * rng.standard_normal((budgets, 2, seeds))
    samples = [([list(own + effect + luck)], [list(dense)]) for own, dense in runs]
    if budgets == 1:
        return seed_difference(*samples[0], documents)
    return pool_budgets([seed_difference(*sample) for sample in samples], documents)


def one_budget(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    caption = (
        f"Verdicts at one budget, {draws:,} draws each: seed standard deviation {percent(SEED)} of the loss, smallest "
        f"effect of interest {percent(SMALLEST_EFFECT, 0)}. Differences above 0 mirror these."
    )
    return caption, *_rows(draws, rng, 1)


def pooled(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    return f"The same, pooled over {BUDGETS} budgets.", *_rows(draws, rng, BUDGETS)


def same_method(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for n in (1, *SEEDS):
        rows.append(_called_different(f"{n} against {n}, simulated", draws, partial(difference, rng, 0.0, n)))
    pool = [each for each in residuals(Path("results/isoflop_cpu")) if len(each) > 5]
    name = f"3 against 3, deviations of {sum(map(len, pool))} runs of results/isoflop_cpu from their mean over seeds"

    def split() -> Interval:
        six = rng.permutation(pool[rng.integers(len(pool))])[:6]
        return seed_difference([list(six[:3])], [list(six[3:])])

    rows.append(_called_different(name, draws, split))
    return f"Comparisons of a method with itself called different, {draws:,} draws each.", ["seeds", "share"], rows


def residuals(results: Path) -> list[np.ndarray]:
    """Of the runs with three seeds or more of one setting, as shares of their mean loss: an array for each method.

    Scaled by sqrt(n / (n - 1)), so that they vary as much as the losses of single runs.
    """
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in map(load_record, find_records(results)):
        if record.comparable and record.quality:
            config = {key: value for key, value in record.config.items() if key not in ("seed", "train")}
            settings = [config, record.flops.budget, record.training.lr]
            cells[record.method, json.dumps(settings, sort_keys=True)].append(record.quality.val_loss_nats)
    found: dict[str, list[float]] = defaultdict(list)
    for (method, _), losses in cells.items():
        if len(losses) > 2:
            found[method] += list((np.array(losses) / np.mean(losses) - 1) * math.sqrt(len(losses) / (len(losses) - 1)))
    return [np.array(each) for each in found.values()]


def _called_different(name: str, draws: int, draw: Callable[[], Interval]) -> list[str]:
    found = [decide(draw(), SMALLEST_EFFECT) in (Verdict.BETTER, Verdict.WORSE) for _ in range(draws)]
    return [name, f"{100 * np.mean(found):.1f} %"]


def _rows(draws: int, rng: np.random.Generator, budgets: int) -> tuple[list[str], list[list[str]]]:
    rows = []
    for effect in EFFECTS:
        for seeds in SEEDS:
            found = [difference(rng, effect, seeds, budgets) for _ in range(draws)]
            decided = [decide(each, SMALLEST_EFFECT) for each in found]
            covered = np.mean([covers(each, effect) for each in found])
            shares = [f"{100 * np.mean([each == verdict for each in decided]):.0f} %" for verdict in Verdict]
            rows.append([percent(effect), str(seeds), *shares, f"{100 * covered:.1f} %"])
    return ["true difference", "seeds", *Verdict, "CI coverage"], rows
