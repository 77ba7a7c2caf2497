"""lm-eval: accuracies at equal FLOPs for the first screen, and the table of all scores with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd

from bench.formats import DASH, decimal
from bench.report.load import Group, RunFiles
from bench.stats.difference import Source, satterthwaite
from bench.stats.interval import Interval
from bench.web.figures import method_colours
from bench.web.intervals import Mark, Scale
from bench.web.tables import Table

LOWER_IS_BETTER = ("bits_per_byte", "perplexity")
ABOVE_CHANCE = "▲"
_ACCURACIES = ("acc", "acc_norm", "exact_match")  # the first that a task has is the one on the first screen
_FURTHER = "hellaswag,arc_easy,piqa"  # lm-eval's own tasks, which need a network


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
    def interval(self) -> Interval | None:
        """Over the task's items and over seeds; with one seed, over items alone. None without a standard error."""
        if self.stderr is None:
            return None
        sources = [Source(self.stderr**2)]
        if self.seed_sd is not None:
            sources.append(Source(self.seed_sd**2 / self.seeds, self.seeds - 1))
        both = satterthwaite(sources)
        return Interval.from_stderr(self.mean, math.sqrt(both.variance), both.degrees)

    @property
    def above_chance(self) -> bool:
        """Whether it is better than chance by at least two standard errors, over items and seeds together."""
        if self.chance is None or self.stderr is None:
            return False
        gain = self.mean - self.chance if self.higher_is_better else self.chance - self.mean
        return gain >= 2 * math.hypot(self.stderr, (self.seed_sd or 0.0) / math.sqrt(self.seeds))


@dataclass(frozen=True)
class Accuracies:
    """Tasks by methods, on one scale. rows: task, chance, and a mark for each method where it has a score."""

    methods: list[str]
    rows: list[tuple[str, float | None, list[Mark | None]]]
    scale: Scale
    seeds: int  # the fewest behind a score
    command: str  # for lm-eval's own tasks


def accuracies(group: Group) -> Accuracies | None:
    """The accuracy of every task that has one; None if none has."""
    colours = method_colours([method.label for method in group.methods])
    found = {metric for method in group.methods for run in method.comparable for metric in _metrics(run)}
    rows, scores = [], []
    for task in dict.fromkeys(task for task, _ in sorted(found)):
        metric = next((each for each in _ACCURACIES if (task, each) in found), None)
        if metric is None:
            continue
        own = {method.label: score(method.comparable, task, metric) for method in group.methods}
        chance = next((each.chance for each in own.values() if each and each.chance is not None), None)
        marks = [
            Mark(label, each.interval or Interval(each.mean), colours[label]) if each else None
            for label, each in own.items()
        ]
        rows.append((task, chance, marks))
        scores += [each for each in own.values() if each]
    if not rows:
        return None
    shown = [mark for _, _, marks in rows for mark in marks if mark]
    return Accuracies(
        methods=[method.label for method in group.methods],
        rows=rows,
        scale=Scale(shown, [chance for _, chance, _ in rows if chance is not None]),
        seeds=min(each.seeds for each in scores),
        command=f"{(group.others or group.methods)[0].first.command} 'evaluate.tasks=[{_FURTHER}]'",
    )


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
