"""The lm-eval table: scores with standard errors, marked if they are better than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd

from bench.formats import DASH, decimal
from bench.report.load import Group, RunFiles
from bench.web.tables import Table

LOWER_IS_BETTER = ("bits_per_byte", "perplexity")
ABOVE_CHANCE = "▲"


@dataclass(frozen=True)
class Score:
    """A task's metric over the comparable seeds of a method."""

    mean: float
    stderr: float | None  # over the task's items
    seed_sd: float | None
    seeds: int
    chance: float | None
    higher_is_better: bool

    @property
    def above_chance(self) -> bool:
        """Whether it is better than chance by at least two standard errors, over items and seeds together."""
        if self.chance is None or self.stderr is None:
            return False
        gain = self.mean - self.chance if self.higher_is_better else self.chance - self.mean
        return gain >= 2 * math.hypot(self.stderr, (self.seed_sd or 0.0) / math.sqrt(self.seeds))


def lm_eval_table(group: Group) -> Table:
    """A row per task and metric, a column per method; only comparable runs count."""
    metrics = sorted({key for method in group.methods for run in method.comparable for key in _metrics(run)})
    rows, data = [], []
    for task, metric in metrics:
        scores = {method.label: score(method.comparable, task, metric) for method in group.methods}
        chance = next((each.chance for each in scores.values() if each and each.chance is not None), None)
        rows.append([f"{task}, {metric}", decimal(chance), *(_cell(each) for each in scores.values())])
        data += [
            {"task": task, "metric": metric, "method": label, "mean": each.mean, "stderr": each.stderr}
            | {"seed_sd": each.seed_sd, "chance": each.chance, "above_chance": each.above_chance}
            for label, each in scores.items()
            if each
        ]
    caption = (
        f"lm-eval scores with the causal router (contract {group.methods[0].first.contract}): mean over seeds ± "
        "standard error over the items of the task. Seeds share the items, so more seeds do not shrink it. "
        f"{ABOVE_CHANCE}: better than chance by at least two standard errors, over items and seeds together."
    )
    return Table("lm_eval", caption, ["task", "chance", *(m.label for m in group.methods)], rows, pd.DataFrame(data))


def score(runs: Sequence[RunFiles], task: str, metric: str) -> Score | None:
    """The metric pooled over `runs`; None if none of them has it."""
    results = [run.record.lm_eval[task] for run in runs if run.record.lm_eval and task in run.record.lm_eval]
    values = [result[metric] for result in results if metric in result]
    if not values:
        return None
    errors = [result[f"{metric}_stderr"] for result in results if f"{metric}_stderr" in result]
    return Score(
        mean=fmean(values),
        stderr=math.sqrt(fmean(error**2 for error in errors)) if errors else None,
        seed_sd=stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        chance=next((result["chance"] for result in results if "chance" in result), None),
        higher_is_better=not metric.endswith(LOWER_IS_BETTER),
    )


def _metrics(run: RunFiles) -> list[tuple[str, str]]:
    return [
        (task, metric)
        for task, result in (run.record.lm_eval or {}).items()
        for metric in result
        if metric != "chance" and not metric.endswith("_stderr")
    ]


def _cell(score: Score | None) -> str:
    if score is None:
        return DASH
    error = f" ± {decimal(score.stderr)}" if score.stderr is not None else ""
    return decimal(score.mean) + error + (f" {ABOVE_CHANCE}" if score.above_chance else "")
