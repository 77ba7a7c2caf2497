"""A method against its dense twin: quality, speed and memory, and the sentence that sums them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bench.formats import NBSP, decimal, percent, signed, times
from bench.records.record import Record
from bench.report.load import Group, Method, RunFiles
from bench.report.settings import contract_words
from bench.stats.interval import Interval
from bench.stats.paired import paired_documents, paired_seeds


@dataclass(frozen=True)
class Speedup:
    """Dense step time over the method's: the median over seeds, and the envelope of the seeds' 95 % intervals."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One method against its dense twin. What was not measured, or may not be compared, is None."""

    label: str
    contract: str
    loss: Interval | None
    dense_loss: float | None  # nats, mean over the twin's runs that were paired
    seeds: list[int]  # that were paired
    speedup: Speedup | None
    speedup_ideal: float | None
    memory_ratio: float | None
    excluded: list[str]  # why some of the runs, or all, do not count for quality

    @property
    def share(self) -> float | None:
        """The difference in loss as a share of the dense loss."""
        return self.loss.value / self.dense_loss if self.loss and self.dense_loss else None


def differences(group: Group) -> list[Difference]:
    """Every method of the group against the dense twin; empty where there is no twin."""
    return [_difference(method, group.twin) for method in group.others] if group.twin else []


def exclusion(record: Record) -> str | None:
    """Why this run's quality may not be compared; None where it may."""
    if record.comparable:
        return None
    if record.run.status == "diverged":
        return "the loss became NaN"
    if record.causality is None:
        return "there was no causality audit"
    if not record.causality.passed:
        change, tolerance = record.causality.max_abs_logit_change, record.causality.tolerance
        return (
            f"the causality audit failed (a later token moved an earlier logit by {change:.2g}, over {tolerance:.2g})"
        )
    return f"the run's status is {record.run.status}"


def verdict(difference: Difference) -> str:
    """One sentence: quality with its uncertainty, realised against ideal speed-up, memory, limits of one seed."""
    parts = [f"{difference.label}: {_quality_words(difference)}"]
    if difference.speedup:
        speed = difference.speedup
        words = f"a training step realised {times(speed.value)} the dense speed ({interval(speed.low, speed.high, 2)})"
        ideal = difference.speedup_ideal
        parts.append(words + (f" of an ideal {times(ideal)}" if ideal is not None else ""))
    if difference.memory_ratio is not None:
        parts.append(f"peak memory was {times(difference.memory_ratio)} dense’s")
    if difference.loss and difference.loss.unit == "documents":
        parts.append(
            "with one seed the interval covers the choice of held-out documents only, "
            "so whether another training seed would agree is not known"
        )
    return "; ".join(parts) + "."


def interval(low: float | None, high: float | None, digits: int = 3, sign: bool = False) -> str:
    """`95 % interval LOW to HIGH`, or that there is none."""
    if low is None or high is None:
        return "no interval"
    write = signed if sign else decimal
    return f"95{NBSP}% interval {write(low, digits)} to {write(high, digits)}"


def _quality_words(difference: Difference) -> str:
    contract = contract_words(difference.contract)
    loss = difference.loss
    if loss is None:
        return f"quality is not compared with dense, because {'; '.join(difference.excluded)}"
    if loss.low is None:
        return (
            f"{contract} its held-out loss differs from dense’s by {signed(loss.value)} nats a token; no difference "
            "could be told, because one pair of runs without losses of the same documents gives no interval"
        )
    pairs = f"{loss.n} paired seeds" if loss.unit == "seeds" else f"one seed, {loss.n} paired documents"
    uncertainty = (
        f"{interval(loss.low, loss.high, sign=True)}; {pairs}; detectable from {decimal(loss.minimum_detectable)} nats"
    )
    if not loss.significant:
        return (
            f"{contract} no difference in held-out loss from dense could be told: "
            f"{signed(loss.value)} nats a token ({uncertainty})"
        )
    better = "lower (better)" if loss.value < 0 else "higher (worse)"
    share = f", {percent(abs(difference.share))}" if difference.share is not None else ""
    return (
        f"{contract} its held-out loss is {decimal(abs(loss.value))} nats a token{share} {better} than dense’s "
        f"({uncertainty})"
    )


def _difference(method: Method, twin: Method) -> Difference:
    pairs = _pairs(method.comparable, twin.comparable)
    excluded = [f"{run.record.run.id}: {why}" for run in method.runs + twin.runs if (why := exclusion(run.record))]
    unmeasured = [run.record.run.id for run in method.comparable + twin.comparable if run.record.quality is None]
    excluded += [f"{run_id}: its held-out loss was not measured" for run_id in unmeasured]
    loss, dense_loss = _loss_difference(pairs)
    if loss is None and not excluded:
        excluded = ["it and the dense twin have no seed in common"]
    return Difference(
        label=method.label,
        contract=method.first.contract,
        loss=loss,
        dense_loss=dense_loss,
        seeds=[one.record.run.seed for one, _ in pairs],
        speedup=_speedup(method.runs),
        speedup_ideal=middle(method.runs, "speed.train_speedup_ideal"),
        memory_ratio=_memory_ratio(method.runs, twin.runs),
        excluded=excluded,
    )


def _pairs(method: Sequence[RunFiles], twin: Sequence[RunFiles]) -> list[tuple[RunFiles, RunFiles]]:
    """Runs of the same seed, and so of the same data order, that both have a held-out loss."""
    dense = {run.record.run.seed: run for run in twin if run.record.quality}
    seeds = [run for run in method if run.record.quality and run.record.run.seed in dense]
    return [(run, dense[run.record.run.seed]) for run in seeds]


def _loss_difference(pairs: list[tuple[RunFiles, RunFiles]]) -> tuple[Interval | None, float | None]:
    if not pairs:
        return None, None
    own = [held_out_loss(run) for run, _ in pairs]
    twins = [held_out_loss(run) for _, run in pairs]
    dense_loss = fmean(twins)
    one, dense = pairs[0]
    if len(pairs) == 1 and one.documents is not None and dense.documents is not None:
        over_documents = paired_documents(one.documents, dense.documents)
        if over_documents:
            return over_documents, dense_loss
    return paired_seeds(own, twins), dense_loss


def held_out_loss(run: RunFiles) -> float:
    """Nats a token with the causal router; the run must have a `quality`."""
    assert run.record.quality is not None
    return run.record.quality.val_loss_nats


def figure(record: Record, path: str) -> float | None:
    """The number at a dotted path such as `speed.train_step_seconds.median`; None where any part is absent."""
    value: Any = record
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def middle(runs: Sequence[RunFiles], path: str) -> float | None:
    """The median of the figure at `path` over the runs that have it."""
    values = [value for run in runs if (value := figure(run.record, path)) is not None]
    return median(values) if values else None


def _speedup(runs: Sequence[RunFiles]) -> Speedup | None:
    timings = [
        run.record.speed.train_speedup_realised
        for run in runs
        if run.record.speed and run.record.speed.train_speedup_realised
    ]
    if not timings:
        return None
    low, high = min(timing.low for timing in timings), max(timing.high for timing in timings)
    return Speedup(median(timing.median for timing in timings), low, high)


def _memory_ratio(runs: Sequence[RunFiles], twins: Sequence[RunFiles]) -> float | None:
    own = middle(runs, "memory.peak_bytes")
    dense = middle(twins, "memory.peak_bytes")
    return own / dense if own is not None and dense else None
