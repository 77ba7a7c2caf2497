"""Reads a results folder into comparisons: runs grouped by name, by comparison hash, by method.

Runs are read loose or packed. A file that cannot be read is named in `problems` and logged; the other runs are
reported.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.identity import MethodId, digest
from bench.errors import UserError
from bench.records.isoflop import FILE as ISOFLOP
from bench.records.packed import PACKS, find_records, is_file, read_bytes, study_of
from bench.records.record import Record, RoutingDetail, load_record
from bench.records.tuning import FILE as TUNING

log = logging.getLogger("bench.report")

STEP_COLUMNS = ["step", "tokens", "train_flops", "seconds", "loss"]
DOCUMENT_COLUMNS = ["document", "tokens", "nats"]
_NAMES = ["document", "cluster"]  # columns of text
_OWN = ("method", "seed", "seeds", "tuned", "baseline")
_HEADING_KEYS = 4  # named in a group's heading
_CONTRACT = "contract.name"
CONTRACTS = {  # in the order of a page's groups
    "train_flops": "at equal training FLOPs",
    "forward_flops": "at equal FLOPs per forward pass",
    "tokens": "at equal training tokens",
    "active_params": "at equal active parameters",
    "total_params": "at equal total parameters",
    "wall_clock": "in equal training time",
}


@dataclass(frozen=True)
class RunFiles:
    """One run: its record and, where the run wrote them, its other files."""

    record: Record
    steps: pd.DataFrame | None = None
    documents: pd.DataFrame | None = None
    routing: RoutingDetail | None = None


@dataclass(frozen=True)
class Method:
    """The runs of one method, by seed; `label` is unique in its group."""

    label: str
    runs: list[RunFiles]

    @property
    def comparable(self) -> list[RunFiles]:
        """The runs whose quality may be compared."""
        return [run for run in self.runs if run.record.comparable]

    @property
    def first(self) -> Record:
        """The record of the lowest seed."""
        return self.runs[0].record

    @property
    def depth(self) -> dict[str, Any]:
        """The settings of its depth router; empty where it has none."""
        return (self.first.config.get("method") or {}).get("depth") or {}


@dataclass(frozen=True)
class Group:
    """Comparable runs: they share a comparison hash and a text. The dense baseline comes first."""

    comparison_hash: str  # and, where several texts share it, the text's fingerprint
    methods: list[Method]
    notes: list[str] = field(default_factory=list)
    differs: str = ""  # what sets it apart from the other groups of its comparison: contract in words, KEY=VALUE, ...

    @property
    def settings(self) -> str:
        """`differs` without the contract, which tables and verdicts name themselves."""
        return self.differs.removeprefix(contract_words(self.methods[0].first.contract)).removeprefix(", ")

    @property
    def runs(self) -> list[RunFiles]:
        return [run for method in self.methods for run in method.runs]

    @property
    def twin(self) -> Method | None:
        """The dense baseline, which every other method is compared with."""
        return next((method for method in self.methods if method.first.method == "dense"), None)

    @property
    def others(self) -> list[Method]:
        """Every method but the dense baseline."""
        return [method for method in self.methods if method is not self.twin]


@dataclass(frozen=True)
class Comparison:
    """What one report shows: the groups of runs that share a name, and their files that could not be read."""

    name: str
    groups: list[Group]
    problems: list[str]
    folder: Path  # of the records


def read_results(results: Path) -> tuple[list[Comparison], list[str]]:
    """Every comparison below `results`, by name, and one line for each file that could not be read.

    Raises UserError if `results` is not a folder or holds no record.
    """
    if not results.is_dir():
        raise UserError(f"{results} is not a folder. Give the folder that holds the results.")
    paths = runs_of_comparisons(results)
    if not paths:
        raise UserError(f"there is no record.json below {results}. Run `python -m bench +method=mod` first.")
    runs: dict[str, list[RunFiles]] = defaultdict(list)
    folders: dict[str, set[Path]] = defaultdict(set)
    problems: list[tuple[Path, str]] = []
    for path in paths:
        try:
            record = load_record(path)
        except UserError as error:
            problems.append((path, str(error)))
            continue
        files, unread = read_files(record, path.parent)
        runs[record.run.name].append(files)
        folders[record.run.name].add(study_of(path))
        problems.extend(unread)
    lines = list(dict.fromkeys((study_of(path), _below(results, path, line)) for path, line in problems))
    for _, line in lines:
        log.warning("warning: %s", line)
    comparisons = [
        Comparison(
            name, group_runs(runs[name]), [line for study, line in lines if study in folders[name]], min(folders[name])
        )
        for name in sorted(runs)
    ]
    return comparisons, [line for _, line in lines]


def _below(results: Path, path: Path, line: str) -> str:
    """`line` with the run's file at `path`, or its packed file, named relative to `results`."""
    for place in (path, study_of(path) / PACKS.get(path.name, path.name)):
        if place.is_relative_to(results):
            line = line.replace(str(place), place.relative_to(results).as_posix())
    return line


def runs_of_comparisons(results: Path) -> list[Path]:
    """Every `record.json` below `results`, except those of studies, which have reports of their own."""
    own = {path.parent for study in (ISOFLOP, TUNING) for path in results.rglob(study)}
    return [path for path in find_records(results) if not own.intersection(path.parents)]


def read_files(record: Record, folder: Path) -> tuple[RunFiles, list[tuple[Path, str]]]:
    """The run of `record` with the other files in `folder`, and (path, message) of each that is damaged."""
    problems: list[tuple[Path, str]] = []

    def read(name: str, parse: Callable[[bytes], Any]) -> Any:
        path = folder / name
        try:
            return parse(read_bytes(path)) if is_file(path) else None
        except (OSError, ValueError) as error:  # the parser errors of pandas and pydantic are ValueErrors
            problems.append((path, f"{path} cannot be used: {_one_line(error)}."))
        except UserError as error:  # of the packed file
            problems.append((path, str(error)))
        return None

    steps = read("steps.csv", lambda content: _csv(content, STEP_COLUMNS))
    documents = read("documents.csv", lambda content: _csv(content, DOCUMENT_COLUMNS))
    return RunFiles(record, steps, documents, read("routing.json", _routing)), problems


def group_runs(runs: Sequence[RunFiles]) -> list[Group]:
    """Runs by comparison hash and text, then by method and its settings; seeds of one method are pooled.

    Several groups are headed and ordered by the settings in which they differ, their contract first.
    """
    by_hash: dict[str, list[RunFiles]] = defaultdict(list)
    for run in runs:
        by_hash[run.record.run.comparison_hash].append(run)
    groups = [group for each in sorted(by_hash) for group in _by_text(each, by_hash[each])]
    settings = [flatten(shared_settings(group.runs[0].record.config)) for group in groups]
    keys = varying_keys(settings)
    order = sorted(range(len(groups)), key=lambda n: [_rank(key, settings[n].get(key)) for key in keys])
    return [replace(groups[n], differs=_values(settings[n], keys)) for n in order]


def _rank(key: str, value: Any) -> tuple[bool, float, str]:
    """Null first, then numbers by size, then words; contracts as listed."""
    if key == _CONTRACT and value in CONTRACTS:
        value = list(CONTRACTS).index(value)
    number = isinstance(value, int | float)
    return value is not None and not number, float(value) if number else -math.inf, written(value)


def _values(settings: dict[str, Any], keys: Sequence[str]) -> str:
    """`at equal training FLOPs, train.lr=0.01, ...` of the first few keys."""
    values = {key: settings.get(key) for key in keys}
    named = [contract_words(str(v)) if key == _CONTRACT else f"{key}={written(v)}" for key, v in values.items()]
    return ", ".join([*named[:_HEADING_KEYS], *(["..."] if len(named) > _HEADING_KEYS else [])])


def _by_text(comparison_hash: str, runs: list[RunFiles]) -> list[Group]:
    """A group for each text that the runs were trained on.

    An older record does not name its text: it joins the others if they share one text, otherwise it is a group.
    """
    texts = {run.record.run.corpus_fingerprint for run in runs}
    if len(texts - {None}) < 2:
        return [_group(comparison_hash, runs)]
    groups = []
    for text in sorted(texts, key=str):
        own = [run for run in runs if run.record.run.corpus_fingerprint == text]
        group = _group(f"{comparison_hash}-{text or 'unknown'}", own)
        words = f"on the text {text}" if text else "that do not name their text"
        note = f"Only runs {words} are shown: the others with these settings used other text and are not comparable."
        groups.append(replace(group, notes=[*group.notes, note]))
    return groups


def _group(comparison_hash: str, runs: list[RunFiles]) -> Group:
    notes = []
    newest: dict[tuple[str, str, str, int], RunFiles] = {}
    for run in sorted(runs, key=lambda run: (run.record.run.created, run.record.run.id)):
        record = run.record
        key = (record.method, record.variant or "", digest(record.config.get("method")), record.run.seed)
        if key in newest:
            older = newest[key].record.run.id
            notes.append(f"{older} is excluded: {record.run.id} is a newer run of the same method and seed.")
        newest[key] = run
    by_settings: dict[tuple[str, str, str], list[RunFiles]] = defaultdict(list)
    for key in sorted(newest):
        by_settings[key[:3]].append(newest[key])
    methods = [Method(label, by_settings[key]) for key, label in _labels(by_settings).items()]
    methods.sort(key=lambda method: (method.first.method != "dense", method.label))
    return Group(comparison_hash, methods, notes)


def _labels(by_settings: dict[tuple[str, str, str], list[RunFiles]]) -> dict[tuple[str, str, str], str]:
    """The method's title; where several share it, with the settings in which they differ."""
    labels = {}
    for key in by_settings:
        namesakes: list[dict[str, Any]] = [
            flatten(by_settings[other][0].record.config.get("method") or {})
            for other in by_settings
            if other[:2] == key[:2]
        ]
        own = flatten(by_settings[key][0].record.config.get("method") or {})
        details = [f"{name}={own[name]}" for name in varying_keys(namesakes) if name in own]
        title = MethodId(key[0], key[1] or None).title
        if details:
            title = f"{title.removesuffix(')')}, {', '.join(details)})" if key[1] else f"{title} ({', '.join(details)})"
        labels[key] = title
    return labels


def _csv(content: bytes, columns: list[str]) -> pd.DataFrame:
    frame = pd.read_csv(BytesIO(content), dtype=dict.fromkeys(_NAMES, str))
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    for column in frame.columns.difference(_NAMES):
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise ValueError(f"column {column} is not all numbers")
    if "document" in columns and (frame[columns].isna().any(axis=None) or frame["document"].duplicated().any()):
        raise ValueError("a document has no figures, or occurs twice")
    return frame


def _routing(content: bytes) -> RoutingDetail:
    detail = RoutingDetail.model_validate_json(content)
    if detail.passage:
        weights = detail.passage.processed if detail.passage.weights is None else detail.passage.weights
        lengths = {len(row) for row in detail.passage.processed} | {len(row) for row in weights}
        rows = {len(detail.passage.processed), len(weights)}
        if lengths - {len(detail.passage.tokens)} or rows != {len(detail.passage.layers)}:
            raise ValueError("its passage does not have one value for each layer and token")
        if detail.passage.nats is not None and len(detail.passage.nats) != len(detail.passage.tokens):
            raise ValueError("its passage does not have one loss for each token")
    bins = len(detail.weight_edges or []) - 1
    if any(len(counts) != bins for counts in (detail.weight_counts or {}).values()):
        raise ValueError("its weight_counts do not fit its weight_edges")
    if len({len(row) for row in (detail.expert_load or {}).values()}) > 1:
        raise ValueError("its expert_load does not have the same number of experts in every layer")
    return detail


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def contract_words(contract: str) -> str:
    """What the contract holds equal, as part of a sentence."""
    return CONTRACTS.get(contract, f"under the contract {contract}")


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys: {"train": {"lr": 1}} is {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def varying_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of flat settings that differ, or are absent, in some of `settings`."""
    keys = {key for each in settings for key in each}
    return sorted(key for key in keys if len({written(each.get(key, "")) for each in settings}) > 1)


def written(value: Any) -> str:
    """A setting as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def shared_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without method and seed, in which the runs of a comparison differ, and what came of them."""
    return {key: value for key, value in config.items() if key not in _OWN}
