"""One side of a comparison: a folder of records as figures, each with its interval or its samples.

Reads records and `ci.json` alone, and imports no torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.gate.rules import LOSS_CURVE, LR_CURVE, judged, rule_of
from bench.records.ci import FILE, CiStudy, load_ci
from bench.records.packed import find_records, read_bytes
from bench.records.record import Environment, Record, Timing, load_record

_NORMAL = 1.959964  # standard errors in half a 95 % interval
_OF_THE_MODEL = ("quality.", "lm_eval.", "routing.")


class NoDataError(UserError):
    """There is nothing to compare."""


@dataclass(frozen=True)
class Figure:
    """A measured value; its 95 % interval, or the samples it is the median of, where there are any."""

    value: float
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()


@dataclass(frozen=True)
class Side:
    """The figures of one folder: (method, figure) -> value.

    broken: what cannot be relied on, a line each. whole: all of its figures, or those of time and memory alone.
    encoder_seconds: of a training step of torch's own encoder, timed in turn with the steps of `speed`: how fast the
    machine was then. None where that is not known.
    """

    folder: Path
    study: str
    created: str
    commit: str | None
    environment: Environment | None
    figures: dict[tuple[str, str], Figure]
    configs: dict[str, dict[str, Any]]
    broken: list[str] = field(default_factory=list)
    whole: bool = True
    encoder_seconds: float | None = None

    @property
    def machine(self) -> str:
        """Equal for studies of the same processor and as many threads: the speed of others is never compared."""
        if self.environment is None:
            return "unknown"
        place = self.environment
        parts = [place.device, place.device_name, str(place.threads), *([place.processor] if place.processor else [])]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]

    @property
    def machine_name(self) -> str:
        """The machine in words."""
        if self.environment is None:
            return "unknown"
        threads = self.environment.threads
        return f"{self.environment.device_name}, {threads} thread{'s' * (threads != 1)}"


def of_the_machine(baseline: Side, current: Side) -> tuple[Side, Side]:
    """Both with their figures of time and memory alone, and of the methods of both: not what a change may ask for."""
    methods = {method for method, _ in baseline.figures} & {method for method, _ in current.figures}

    def timed(side: Side) -> Side:
        rules = {key: rule_of(key[1], key[0]) for key in side.figures if key[0] in methods}
        here = {key: side.figures[key] for key, rule in rules.items() if rule is not None and rule.here}
        return replace(side, figures=here, configs={}, whole=False)

    return timed(baseline), timed(current)


def read_side(folder: Path) -> Side:
    """Read a study's folder: the runs that `ci.json` names, or every record there is.

    Raises UserError where there is no such folder, NoDataError where it holds no record. A record that is broken,
    missing, diverged or failed its audit is named in `broken`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of results.")
    broken: list[str] = []
    study = _study(folder, broken)
    records = _records(folder, study, broken)
    figures: dict[tuple[str, str], Figure] = {}
    for method, (record, path) in records.items():
        broken += [f"{method}: {fault}" for fault in _faults(record)]
        for figure, value in (*_figures(record), *_curves(record, path.with_name("steps.csv"), broken)):
            figures[method, figure] = value
    if not records and not broken:
        raise NoDataError(f"{folder} holds no record.json.")
    for method, speeds in (study.speed if study else {}).items():
        for name, samples in speeds.items():
            if samples:
                figures[method, f"speed.{name}"] = _sampled(samples)
    for method, name in [key for key, figure in figures.items() if not _finite(figure)]:
        broken.append(f"{method}, {name}: not a number.")
        del figures[method, name]
    first = next((record for record, _ in records.values()), None)
    return Side(
        folder=folder,
        study=study.name if study else first.run.name if first else folder.name,
        created=study.created if study else max((record.run.created for record, _ in records.values()), default=""),
        commit=study.git_commit if study else first.run.git_commit if first else None,
        environment=study.environment if study else first.environment if first else None,
        figures=figures,
        configs={method: record.config for method, (record, _) in records.items()},
        broken=broken,
        encoder_seconds=statistics.median(study.encoder_seconds) if study and study.encoder_seconds else None,
    )


def _study(folder: Path, broken: list[str]) -> CiStudy | None:
    if not (folder / FILE).exists():
        return None
    try:
        return load_ci(folder / FILE)
    except UserError as error:
        broken.append(str(error))
        return None


def _records(folder: Path, study: CiStudy | None, broken: list[str]) -> dict[str, tuple[Record, Path]]:
    """Method -> its record and where that stands; without `ci.json`, every record, by what it says of itself.

    Where `ci.json` is broken nothing tells which run stands for what, and none is read.
    """
    if study is not None:
        records = {}
        for method, path in ((method, folder / run_id / "record.json") for method, run_id in study.runs.items()):
            record = _read(path, broken)
            if record is not None and method in (record.method, _method(record)):
                records[method] = record, path
            elif record is not None:
                broken.append(f"{method}: {path} is the record of {_method(record)}.")
        return records
    if (folder / FILE).exists():
        return {}
    found = [(record, path) for path in find_records(folder) if (record := _read(path, broken)) is not None]
    count = Counter(_label(record) for record, _ in found)
    return {
        _label(record) + (f",{record.run.id}" if count[_label(record)] > 1 else ""): (record, path)
        for record, path in found
    }


def _read(path: Path, broken: list[str]) -> Record | None:
    try:
        return load_record(path)
    except UserError as error:
        broken.append(str(error))
        return None


def _method(record: Record) -> str:
    return f"{record.method}/{record.variant}" if record.variant else record.method


def _label(record: Record) -> str:
    return f"{_method(record)},seed{record.run.seed}"


def _faults(record: Record) -> Iterator[str]:
    if record.run.status != "finished":
        yield f"{record.run.status.replace('_', ' ')}: {record.run.message or 'no more is known'}."
    elif record.causality is None:
        yield "its causality was not audited."
    elif not record.causality.passed:
        change, tolerance = record.causality.max_abs_logit_change, record.causality.tolerance
        yield f"failed its causality audit: logits change by {change:.2g}, {tolerance:.2g} is allowed."


def _figures(record: Record) -> Iterator[tuple[str, Figure]]:
    """Every figure, with its interval where the record has one.

    What was measured of the model is left out where the run went wrong or its causality is not vouched for.
    """
    flat = dict(_flat(record.model_dump(exclude_none=True, exclude={"config"})))
    for name, value in flat.items():
        if not judged(name) or (name.startswith(_OF_THE_MODEL) and not record.comparable):
            continue
        stderr = flat.get(f"{name}_stderr")
        half = _NORMAL * stderr if stderr is not None else None
        yield name, Figure(value, *((value - half, value + half) if half is not None else (None, None)))


def _flat(part: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """`a.b.c` -> number, without spaces in its name; points of decoding are named by their batch size."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _flat(value, (f"{prefix}.{key}" if prefix else str(key)).replace(" ", "_"))
    elif isinstance(part, list):
        for each in part:
            if isinstance(each, dict) and "batch_size" in each:
                yield from _flat(each, f"{prefix}.{each['batch_size']}")
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield prefix, float(part)


def _curves(record: Record, path: Path, broken: list[str]) -> Iterator[tuple[str, Figure]]:
    """The training loss at a few steps, early ones most: there, a change has not yet been amplified; and the rate."""
    try:
        table = list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline="")))
        rows = {int(row["step"]): row for row in table}
        losses = {step: float(row["loss"]) for step, row in rows.items()}
        rates = {step: float(rows[step]["lr"]) for step in LR_CURVE if "lr" in rows.get(step, ())}
    except OSError:
        return  # a figure that is missing on one side is a finding of its own
    except UserError as error:
        broken.append(str(error))
        return
    except (KeyError, TypeError, ValueError, csv.Error):
        broken.append(f"{path} is not a whole log of steps.")
        return
    every = record.config.get("train", {}).get("log_every")
    whole = range(every, record.training.steps + 1, every) if isinstance(every, int) and every > 0 else rows
    if record.run.status == "finished" and [int(row["step"]) for row in table] != list(whole):
        broken.append(f"{path} is not the log of the {record.training.steps:,} steps that its record tells of.")
        return
    if any(loss <= 0 for loss in losses.values()):
        broken.append(f"{path} is not a log of steps: a loss must be above 0.")
        return
    yield from ((f"loss_curve.{step}", Figure(losses[step])) for step in LOSS_CURVE if step in losses)
    yield from ((f"lr_curve.{step}", Figure(rate)) for step, rate in rates.items())


def _sampled(samples: list[float]) -> Figure:
    middle = Timing.of(samples)
    return Figure(middle.median, middle.low, middle.high, tuple(samples))


def _finite(figure: Figure) -> bool:
    return all(isfinite(number) for number in (figure.value, figure.low, figure.high) if number is not None)
