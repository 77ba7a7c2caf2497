"""Many runs in one JSON file, to be loaded next to those of others: `python -m bench.report RESULTS --export FILE`.

A run is its whole record: key numbers, audit, FLOPs, seed, versions, configuration and hashes. `bench.load(FILE)` reads
it, and so does anything that reads JSON.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.errors import UserError
from bench.records.files import SCHEMA_VERSION, StrictModel, load
from bench.records.isoflop import stages_of
from bench.records.packed import find_records, study_of
from bench.records.record import Record, load_record


class Export(StrictModel):
    schema_version: int = SCHEMA_VERSION
    losses: str = Field("nats/token, with the causal router", description="the unit of losses")
    flops: str = Field("a multiply-add is 2", description="how FLOPs are counted")
    stages: dict[str, list[str]] = Field(
        default_factory=dict, description="run of an isoFLOP study -> what it is for: rates, grid, seeds, controls"
    )
    runs: list[Record] = Field(description="in the order of their comparisons, methods and seeds")


def export(results: Path, file: Path) -> tuple[int, list[str]]:
    """Write every run below `results` to `file`; returns their number, and a line for each that could not be read.

    Raises UserError if there is no run, or `file` cannot be written.
    """
    runs: list[Record] = []
    problems: list[str] = []
    stages: dict[str, list[str]] = {}
    paths = find_records(results)
    for study in dict.fromkeys(map(study_of, paths)):
        try:
            stages |= {run: list(own) for run, own in stages_of(study).items()}
        except UserError as error:
            problems.append(str(error))
    for path in paths:
        try:
            runs.append(load_record(path))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        raise UserError(problems[0] if problems else f"there is no finished run below {results}.")
    runs.sort(key=lambda record: (record.run.name, record.method, record.variant or "", record.run.seed, record.run.id))
    Export(stages=stages, runs=runs).save(file)
    return len(runs), problems


def load_export(file: Path) -> Export:
    """The runs of an exported file. Raises UserError if it is none, or of a newer schema."""
    return load(file, Export, "an export of runs", "Export it again.")
