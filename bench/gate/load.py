"""One side of a comparison: a folder of records as figures, each with its interval or its samples.

Reads only records, step logs and `ci.json`; imports no torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from bench.config.identity import MethodId
from bench.errors import UserError
from bench.gate.rules import LOSS_CURVE, LR_CURVE, is_figure, rule_of
from bench.records.ci import FILE, CiStudy, load_ci
from bench.records.files import Kind
from bench.records.packed import find_records, read_bytes
from bench.records.record import Environment, Record, load_record
from bench.stats.interval import Interval

_NORMAL = 1.959964  # standard errors in half a 95 % interval
_OF_THE_MODEL = ("quality.", "lm_eval.", "routing.")


class NoDataError(UserError):
    """There is nothing to compare."""


Key = tuple[str, str]  # method, as METHOD[/VARIANT][,SEED[,RUN]], and figure, as `quality.val_loss_nats`


@dataclass(frozen=True)
class Side:
    """The figures of one folder: (method, figure) -> value with its 95 % interval.

    samples: those of the figures that are medians of samples, one per process. configs: by method.
    broken: unreliable records, one line each. whole: False where only figures of time and memory are kept.
    encoder_seconds: median time of a training step of torch's own encoder, timed alternately with the steps of `speed`.
    It measures how fast the machine was; None where unknown.
    """

    folder: Path
    study: str
    created: str
    commit: str | None
    environment: Environment | None
    figures: dict[Key, Interval]
    configs: dict[str, dict[str, Any]]
    samples: dict[Key, tuple[float, ...]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    whole: bool = True
    encoder_seconds: float | None = None

    def sample_count(self, method: str, figure: str) -> int:
        """How many samples a figure is the median of."""
        return len(self.samples.get((method, figure), ()))

    @property
    def machine(self) -> str:
        """Equal for studies on the same processor with as many threads; only their speeds are comparable."""
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


def time_and_memory(baseline: Side, current: Side) -> tuple[Side, Side]:
    """Both sides with only the time and memory of the methods that both have, which no change alters on purpose."""
    methods = {method for method, _ in baseline.figures} & {method for method, _ in current.figures}

    def timed(side: Side) -> Side:
        rules = {key: rule_of(key[1], key[0]) for key in side.figures if key[0] in methods}
        here = {key: side.figures[key] for key, rule in rules.items() if rule is not None and rule.here}
        return replace(side, figures=here, configs={}, whole=False)

    return timed(baseline), timed(current)


def read_side(folder: Path) -> Side:
    """Read a study's folder: the runs that `ci.json` names, or every record without one.

    Raises UserError if there is no such folder, NoDataError if it holds no record. A record that is broken,
    missing, diverged or failed its audit is named in `broken`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of results.")
    broken: list[str] = []
    study = _read(load_ci, folder / FILE, broken) if (folder / FILE).exists() else None
    records = _records(folder, study, broken)
    figures: dict[Key, Interval] = {}
    for method, (record, path) in records.items():
        broken += [f"{method}: {fault}" for fault in _faults(record)]
        for figure, value in (*_figures(record), *_curves(record, path.with_name("steps.csv"), broken)):
            figures[method, figure] = value
    if not records and not broken:
        raise NoDataError(f"{folder} holds no record.json.")
    speeds = (study.speed if study else {}).items()
    samples = {(method, f"speed.{name}"): tuple(own) for method, each in speeds for name, own in each.items() if own}
    figures |= {key: Interval.of_median(own) for key, own in samples.items()}
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
        samples={key: own for key, own in samples.items() if key in figures},
        broken=broken,
        encoder_seconds=statistics.median(study.encoder_seconds) if study and study.encoder_seconds else None,
    )


def _records(folder: Path, study: CiStudy | None, broken: list[str]) -> dict[str, tuple[Record, Path]]:
    """Method -> its record and that record's path; without `ci.json`, every record, named by its own content.

    If `ci.json` is broken, no run is read, because nothing says which method a run is.
    """
    if study is not None:
        records = {}
        for method, path in ((method, folder / run_id / "record.json") for method, run_id in study.runs.items()):
            record = _read(load_record, path, broken)
            if record is not None and method in (record.method, str(_method(record))):
                records[method] = record, path
            elif record is not None:
                broken.append(f"{method}: {path} is the record of {_method(record)}.")
        return records
    if (folder / FILE).exists():
        return {}
    found = [
        (record, path) for path in find_records(folder) if (record := _read(load_record, path, broken)) is not None
    ]
    names = [f"{_method(record)},seed{record.run.seed}" for record, _ in found]
    count = Counter(names)
    return {
        f"{name},{record.run.id}" if count[name] > 1 else name: (record, path)
        for name, (record, path) in zip(names, found, strict=True)
    }


def _read(load: Callable[[Path], Kind], path: Path, broken: list[str]) -> Kind | None:
    try:
        return load(path)
    except UserError as error:
        broken.append(str(error))
        return None


def _method(record: Record) -> MethodId:
    return MethodId(record.method, record.variant)


def title(method: str) -> str:
    """A method of a side as people write it, with its seed and run where it names them: `MoDE (staged), seed0`."""
    name, *rest = (part.strip() for part in method.split(","))
    return ", ".join([MethodId.parse(name).title, *rest])


def _faults(record: Record) -> Iterator[str]:
    if record.run.status != "finished":
        yield f"{record.run.status.replace('_', ' ')}: {record.run.message or 'no message was recorded'}."
    elif record.causality is None:
        yield "causality was not audited."
    elif not record.causality.passed:
        change, tolerance = record.causality.max_abs_logit_change, record.causality.tolerance
        yield f"failed its causality audit: logits change by {change:.2g}, the tolerance is {tolerance:.2g}."


def _figures(record: Record) -> Iterator[tuple[str, Interval]]:
    """Every figure, with its interval where the record has one.

    Measurements of the trained model are excluded if the run or its causality audit failed.
    """
    flat = dict(_flat(record.model_dump(exclude_none=True, exclude={"config"})))
    for name, value in flat.items():
        if not is_figure(name) or (name.startswith(_OF_THE_MODEL) and not record.comparable):
            continue
        half = _NORMAL * flat[f"{name}_stderr"] if f"{name}_stderr" in flat else None
        yield name, Interval(value) if half is None else Interval(value, value - half, value + half)


def _flat(part: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """`a.b.c` -> number, with no spaces in the name; decoding points are named by their batch size."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _flat(value, (f"{prefix}.{key}" if prefix else str(key)).replace(" ", "_"))
    elif isinstance(part, list):
        for each in part:
            if isinstance(each, dict) and "batch_size" in each:
                yield from _flat(each, f"{prefix}.{each['batch_size']}")
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield prefix, float(part)


def _curves(record: Record, path: Path, broken: list[str]) -> Iterator[tuple[str, Interval]]:
    """The training loss and the learning rate at a few steps, mostly early: there, rounding is not yet amplified."""
    try:
        table = list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline="")))
        rows = {int(row["step"]): row for row in table}
        losses = {step: float(row["loss"]) for step, row in rows.items()}
        rates = {step: float(rows[step]["lr"]) for step in LR_CURVE if "lr" in rows.get(step, ())}
    except OSError:
        return  # a figure missing on one side is itself a finding
    except UserError as error:
        broken.append(str(error))
        return
    except (KeyError, TypeError, ValueError, csv.Error):
        broken.append(f"{path} is not a complete step log.")
        return
    every = record.config.get("train", {}).get("log_every")
    whole = range(every, record.training.steps + 1, every) if isinstance(every, int) and every > 0 else rows
    if record.run.status == "finished" and [int(row["step"]) for row in table] != list(whole):
        broken.append(f"{path} does not log the {record.training.steps:,} steps of its record.")
        return
    if any(loss <= 0 for loss in losses.values()):
        broken.append(f"{path} is not a step log: a loss must be above 0.")
        return
    yield from ((f"loss_curve.{step}", Interval(losses[step])) for step in LOSS_CURVE if step in losses)
    yield from ((f"lr_curve.{step}", Interval(rate)) for step, rate in rates.items())


def _finite(figure: Interval) -> bool:
    return all(map(isfinite, (figure.value, *(figure.ends or ()))))
