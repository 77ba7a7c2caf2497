"""A method against its dense baseline: quality, speed and memory, and the verdict that sums them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import pandas as pd

from bench.formats import NBSP, decimal, percent, signed, span, times
from bench.records.record import Record
from bench.report.degenerate import degenerate
from bench.report.load import Group, Method, RunFiles, contract_words
from bench.report.optimal_size import size_caveat
from bench.stats.difference import seed_difference
from bench.stats.interval import Interval
from bench.stats.paired import document_interval, document_source
from bench.stats.verdict import FEWEST_SEEDS, SMALLEST_EFFECT, STRICTER_EFFECT, Verdict, decide_all

_FINDINGS = {
    Verdict.BETTER: "better than dense",
    Verdict.WORSE: "worse than dense",
    Verdict.EQUIVALENT: "equivalent to dense",
    Verdict.INCONCLUSIVE: "inconclusive",
}


@dataclass(frozen=True)
class Difference:
    """One method against its dense baseline. Figures that were not measured, or are not comparable, are None.

    loss: over training seeds, and without an interval where a side has one. documents: of one seed each, the interval
    for other validation documents; no verdict follows from it. sizes: a sentence on sides far from their optimal size.
    """

    label: str
    contract: str
    seeds: tuple[int, int]  # comparable runs of the method and of the baseline
    loss: Interval | None
    documents: Interval | None
    dense_loss: float | None  # nats/token, mean over the runs of the baseline
    speedup: Interval | None  # dense step time over the method's
    speedup_ideal: float | None
    larger: str | None  # the speed-up at a larger shape, in words
    memory_ratio: float | None
    excluded: list[str]  # why the quality of some runs, or all, is not compared
    sizes: str | None
    degenerate: str | None  # routing that has collapsed, in one of the runs
    verdict: Verdict = Verdict.INCONCLUSIVE  # with SMALLEST_EFFECT
    stricter: Verdict = Verdict.INCONCLUSIVE  # with STRICTER_EFFECT

    @property
    def share(self) -> float | None:
        """The difference in loss as a share of the dense loss."""
        return self.loss.value / self.dense_loss if self.loss and self.dense_loss else None


def differences(groups: Sequence[Group]) -> list[list[Difference]]:
    """For each group of one page every method against the dense baseline; empty where there is none.

    The methods of the page are one family of tests (Holm).
    """
    found = [[_difference(method, group.twin) for method in group.others if group.twin] for group in groups]
    decided = iter(_decided([each for own in found for each in own]))
    return [[next(decided) for _ in own] for own in found]


def exclusion(record: Record) -> str | None:
    """Why this run's quality may not be compared; None if it may."""
    if record.comparable:
        return None
    if record.run.status == "diverged":
        return record.run.message or "the loss became NaN"
    if record.causality is None:
        return "there was no causality audit"
    if not record.causality.passed:
        change, tolerance = record.causality.max_abs_logit_change, record.causality.tolerance
        return f"the causality audit failed (a later token changed a logit by {change:.2g}, tolerance {tolerance:.2g})"
    return f"the status of the run is {record.run.status}"


def verdict(difference: Difference) -> str:
    """Quality with its uncertainty and verdict, then its limits, speed and memory, in short sentences."""
    sentences = [finding(difference)]
    if difference.loss:
        sentences += [*_limits(difference), *filter(None, [difference.sizes, difference.degenerate])]
    if difference.speedup:
        ideal = f", ideal {times(difference.speedup_ideal)}" if difference.speedup_ideal is not None else ""
        ci = confidence(difference.speedup, lambda ratio: decimal(ratio, 2))
        larger = f"; {difference.larger}" if difference.larger else ""
        sentences.append(f"Training: {times(difference.speedup.value)} dense’s tokens/s ({ci}){ideal}{larger}")
    if difference.memory_ratio is not None:
        sentences.append(f"Peak memory: {times(difference.memory_ratio)} dense’s")
    return ". ".join(sentences) + "."


def confidence(interval: Interval, write: Callable[[float | None], str] = signed) -> str:
    """`95 % CI LOW to HIGH`, or that there is none."""
    if interval.low is None or interval.high is None:
        return "no CI"
    return f"95{NBSP}% CI {span(interval.low, interval.high, write)}"


def sample(difference: Difference) -> str:
    """The sample behind a difference of losses: `n = 3 seeds`, or `n = 3 seeds, dense 5`."""
    own, dense = difference.seeds
    return f"n = {own} seed{'s' * (own != 1)}" + f", dense {dense}" * (own != dense)


def finding(difference: Difference) -> str:
    """The difference in quality with its uncertainty, what that means, and the contract it is under; no full stop."""
    contract, loss = contract_words(difference.contract), difference.loss
    if loss is None:
        return f"quality not compared with dense, because {'; '.join(difference.excluded)}"
    share = f", {signed(100 * difference.share, 1)}{NBSP}%" if difference.share is not None else ""
    measured = f"{signed(loss.value)} nats/token{share} ({confidence(loss)}, {sample(difference)})"
    return f"{measured}: {_FINDINGS[difference.verdict]} {contract}"


def _limits(difference: Difference) -> list[str]:
    """What the verdict rests on, or what it lacks."""
    assert difference.loss is not None
    if difference.loss.minimum_detectable is None:
        return _one_seed(difference)
    assert difference.dense_loss is not None
    margin = f"±{decimal(SMALLEST_EFFECT * difference.dense_loss)} nats/token, {percent(SMALLEST_EFFECT, 0)} of dense’s"
    if difference.stricter != difference.verdict:
        margin += f" (with {percent(STRICTER_EFFECT)}: {difference.stricter})"
    effect = f"minimum detectable effect {decimal(difference.loss.minimum_detectable)}"
    return [f"Smallest effect of interest {margin}; {effect}"]


def _one_seed(difference: Difference) -> list[str]:
    """What is missing, and what the documents say of these runs alone."""
    single = [side for side, seeds in zip((difference.label, "dense"), difference.seeds, strict=True) if seeds == 1]
    missing = (
        f"One seed of {' and '.join(single)} does not show how much the loss varies between seeds: "
        f"train at least {FEWEST_SEEDS}"
    )
    documents = difference.documents
    if documents is None or documents.low is None or documents.high is None:
        return [missing]
    if math.isinf(documents.high):
        few = f"{documents.n} validation documents are too few, or too unequal,"
        return [missing, f"{'1 validation document is too few' if documents.n == 1 else few} for a CI over documents"]
    return [
        missing,
        f"With other validation documents these runs would differ by {span(documents.low, documents.high, signed)} "
        f"(95{NBSP}% CI, {documents.n} documents), which says nothing about other seeds",
    ]


def _decided(family: list[Difference]) -> list[Difference]:
    """With their verdicts, as one family of tests."""
    compared = [(each.loss, each.dense_loss) for each in family if each.loss and each.dense_loss]
    losses = [loss for loss, _ in compared]
    usual = iter(decide_all(losses, [SMALLEST_EFFECT * dense for _, dense in compared]))
    stricter = iter(decide_all(losses, [STRICTER_EFFECT * dense for _, dense in compared]))
    return [
        replace(each, verdict=next(usual), stricter=next(stricter)) if each.loss and each.dense_loss else each
        for each in family
    ]


def _difference(method: Method, baseline: Method) -> Difference:
    own, dense = ([run for run in side.comparable if run.record.quality] for side in (method, baseline))
    excluded = [f"{run.record.run.id}: {why}" for run in method.runs + baseline.runs if (why := exclusion(run.record))]
    unmeasured = [run.record.run.id for run in method.comparable + baseline.comparable if run.record.quality is None]
    excluded += [f"{run_id}: the validation loss was not measured" for run_id in unmeasured]
    compared = bool(own and dense)
    return Difference(
        label=method.label,
        contract=method.first.contract,
        seeds=(len(own), len(dense)),
        loss=_loss_difference(own, dense) if compared else None,
        documents=_over_documents(own, dense) if compared else None,
        dense_loss=fmean(map(validation_loss, dense)) if compared else None,
        speedup=_speedup(method.runs),
        speedup_ideal=middle(method.runs, "speed.train_speedup_ideal"),
        larger=_larger(method.runs),
        memory_ratio=_memory_ratio(method.runs, baseline.runs),
        excluded=excluded,
        degenerate=next((fault[0].upper() + fault[1:] for run in method.runs if (fault := degenerate(run))), None),
        sizes=size_caveat({baseline.label: baseline.first, method.label: method.first}),
    )


def _loss_difference(own: Sequence[RunFiles], dense: Sequence[RunFiles]) -> Interval:
    """Over seeds, with the variance of validation documents where every run has its losses by document."""
    losses = [[validation_loss(run) for run in side] for side in (own, dense)]
    return seed_difference(losses[:1], losses[1:], document_source(*_documents(own, dense)))


def _over_documents(own: Sequence[RunFiles], dense: Sequence[RunFiles]) -> Interval | None:
    return document_interval(*_documents(own, dense)) if min(len(own), len(dense)) == 1 else None


def _documents(*sides: Sequence[RunFiles]) -> list[list[list[pd.DataFrame | None]]]:
    """The losses by document of each side, as one cell."""
    return [[[run.documents for run in side]] for side in sides]


def validation_loss(run: RunFiles) -> float:
    """In nats/token, with the causal router; the run must have a `quality`."""
    assert run.record.quality is not None
    return run.record.quality.val_loss_nats


def figure(record: Record, path: str) -> float | None:
    """The number at a dotted path such as `speed.train_step_seconds.median`; None if any part is absent."""
    value: Any = record
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def middle(runs: Sequence[RunFiles], path: str) -> float | None:
    """The median of the figure at `path` over the runs that have it."""
    values = [value for run in runs if (value := figure(run.record, path)) is not None]
    return median(values) if values else None


def _speedup(runs: Sequence[RunFiles]) -> Interval | None:
    """The median over seeds, and the envelope of the seeds' 95 % intervals."""
    speeds = [run.record.speed.train_speedup_realised for run in runs if run.record.speed]
    timings = [timing for timing in speeds if timing]
    if not timings:
        return None
    low, high = min(timing.low for timing in timings), max(timing.high for timing in timings)
    return Interval(median(timing.median for timing in timings), low, high)


def _larger(runs: Sequence[RunFiles]) -> str | None:
    timed = [run.record.speed.larger for run in runs if run.record.speed and run.record.speed.larger]
    if not timed:
        return None
    shape, realised = timed[0], median(each.train_speedup_realised.median for each in timed)
    ideal = times(shape.train_speedup_ideal)
    return f"at {shape.n_layers} × {shape.d_model}, batch {shape.batch_size}: {times(realised)}, ideal {ideal}"


def _memory_ratio(runs: Sequence[RunFiles], baselines: Sequence[RunFiles]) -> float | None:
    own = middle(runs, "memory.peak_bytes")
    dense = middle(baselines, "memory.peak_bytes")
    return own / dense if own is not None and dense else None
