"""What the ci study leaves behind beside its runs' records: `results/ci/ci.json`, which the gate reads.

The records hold what is deterministic; this file says which run stands for which method, and holds the samples of
speed that a test can be made on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bench.records.files import load, write_atomically
from bench.records.record import Environment, Ratio

FILE = "ci.json"
SCHEMA_VERSION = 2


def _plain(run_id: str) -> str:
    """Run ids are folders beside `ci.json`; nothing else is ever followed."""
    if run_id in ("", ".", "..") or Path(run_id).name != run_id:
        raise ValueError(f"{run_id!r} is not the name of a run's folder")
    return run_id


class CiStudy(BaseModel):
    """A ci study's runs, and its samples of speed."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str = Field(description="ISO 8601, UTC")
    git_commit: str | None = None
    command: str
    environment: Environment
    runs: dict[str, Annotated[str, AfterValidator(_plain)]] = Field(
        description="method, as METHOD or METHOD/VARIANT -> run id"
    )
    speed: dict[str, dict[str, list[Ratio]]] = Field(
        description="method -> figure -> a sample a process: the median over rounds of steps taken in turn"
    )
    encoder_seconds: list[Ratio] = Field(
        [], description="of a training step of torch's own encoder, in turn with those; a sample a process"
    )


def save_ci(study: CiStudy, folder: Path) -> None:
    """Write `ci.json` into `folder`, atomically."""
    write_atomically(folder / FILE, study.model_dump_json(indent=2, exclude_none=True) + "\n")


def load_ci(path: Path) -> CiStudy:
    """Read `ci.json`; raises UserError where it is missing, truncated, from a newer schema, or not one."""
    return load(path, CiStudy, "a ci study", "Run the study again.", SCHEMA_VERSION)
