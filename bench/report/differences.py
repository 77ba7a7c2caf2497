"""A method against its dense baseline: quality, speed and memory, and the verdict that sums them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bench.formats import NBSP, decimal, signed, span, times
from bench.records.record import Record
from bench.report.load import Group, Method, RunFiles, contract_words
from bench.stats.interval import Interval
from bench.stats.paired import paired_documents, paired_seeds


@dataclass(frozen=True)
class Difference:
    """One method against its dense baseline. Figures that were not measured, or are not comparable, are None."""

    label: str
    contract: str
    loss: Interval | None
    dense_loss: float | None  # nats/token, mean over the paired runs of the baseline
    speedup: Interval | None  # dense step time over the method's
    speedup_ideal: float | None
    memory_ratio: float | None
    excluded: list[str]  # why the quality of some runs, or all, is not compared

    @property
    def share(self) -> float | None:
        """The difference in loss as a share of the dense loss."""
        return self.loss.value / self.dense_loss if self.loss and self.dense_loss else None


def differences(group: Group) -> list[Difference]:
    """Every method of the group against the dense baseline; empty if there is none."""
    return [_difference(method, group.twin) for method in group.others] if group.twin else []


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
    """Quality with its uncertainty, then speed, memory and the limits of one seed, in short sentences."""
    sentences = [_quality(difference)]
    if difference.speedup:
        ideal = f", ideal {times(difference.speedup_ideal)}" if difference.speedup_ideal is not None else ""
        ci = confidence(difference.speedup, lambda ratio: decimal(ratio, 2))
        sentences.append(f"Training step: {times(difference.speedup.value)} the dense speed ({ci}){ideal}")
    if difference.memory_ratio is not None:
        sentences.append(f"Peak memory: {times(difference.memory_ratio)} dense’s")
    if difference.loss and difference.loss.unit == "documents":
        sentences.append("One seed: the CI covers the choice of documents, not the variance between training seeds")
    return ". ".join(sentences) + "."


def confidence(interval: Interval, write: Callable[[float | None], str] = signed) -> str:
    """`95 % CI LOW to HIGH`, or that there is none."""
    if interval.low is None or interval.high is None:
        return "no CI"
    return f"95{NBSP}% CI {span(interval.low, interval.high, write)}"


def sample(interval: Interval) -> str:
    """The sample behind an interval of losses: `n = 3 seeds`, or the documents of one seed."""
    if interval.unit == "documents":
        return f"n = 1 seed, {interval.n} documents"
    return f"n = {interval.n} seed{'s' * (interval.n != 1)}"


def _quality(difference: Difference) -> str:
    contract, loss = contract_words(difference.contract), difference.loss
    if loss is None:
        return f"quality not compared with dense, because {'; '.join(difference.excluded)}"
    share = f", {signed(100 * difference.share, 1)}{NBSP}%" if difference.share is not None else ""
    measured = f"validation loss {signed(loss.value)} nats/token{share} ({confidence(loss)}, {sample(loss)}"
    if loss.low is None:
        return f"inconclusive {contract}: {measured}, no per-document losses)"
    better = "better than" if loss.value < 0 else "worse than"
    finding = better if loss.significant else "not significantly different from"
    effect = f"minimum detectable effect {decimal(loss.minimum_detectable)} nats/token"
    return f"{finding} dense {contract}: {measured}; {effect})"


def _difference(method: Method, baseline: Method) -> Difference:
    pairs = _pairs(method.comparable, baseline.comparable)
    excluded = [f"{run.record.run.id}: {why}" for run in method.runs + baseline.runs if (why := exclusion(run.record))]
    unmeasured = [run.record.run.id for run in method.comparable + baseline.comparable if run.record.quality is None]
    excluded += [f"{run_id}: the validation loss was not measured" for run_id in unmeasured]
    loss, dense_loss = _loss_difference(pairs)
    if loss is None and not excluded:
        excluded = ["it has no seed in common with the dense baseline"]
    return Difference(
        label=method.label,
        contract=method.first.contract,
        loss=loss,
        dense_loss=dense_loss,
        speedup=_speedup(method.runs),
        speedup_ideal=middle(method.runs, "speed.train_speedup_ideal"),
        memory_ratio=_memory_ratio(method.runs, baseline.runs),
        excluded=excluded,
    )


def _pairs(method: Sequence[RunFiles], baseline: Sequence[RunFiles]) -> list[tuple[RunFiles, RunFiles]]:
    """Runs of the same seed, and so of the same data order, that both have a validation loss."""
    dense = {run.record.run.seed: run for run in baseline if run.record.quality}
    seeds = [run for run in method if run.record.quality and run.record.run.seed in dense]
    return [(run, dense[run.record.run.seed]) for run in seeds]


def _loss_difference(pairs: list[tuple[RunFiles, RunFiles]]) -> tuple[Interval | None, float | None]:
    if not pairs:
        return None, None
    own = [validation_loss(run) for run, _ in pairs]
    baselines = [validation_loss(run) for _, run in pairs]
    dense_loss = fmean(baselines)
    one, dense = pairs[0]
    if len(pairs) == 1 and one.documents is not None and dense.documents is not None:
        over_documents = paired_documents(one.documents, dense.documents)
        if over_documents:
            return over_documents, dense_loss
    return paired_seeds(own, baselines), dense_loss


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


def _memory_ratio(runs: Sequence[RunFiles], baselines: Sequence[RunFiles]) -> float | None:
    own = middle(runs, "memory.peak_bytes")
    dense = middle(baselines, "memory.peak_bytes")
    return own / dense if own is not None and dense else None
