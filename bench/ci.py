"""What the ci study leaves behind beside its runs' records: `results/ci/ci.json`, which the gate reads.

The records hold what is deterministic; this file says which run stands for which method, and holds the samples of
speed that a test can be made on.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError
from bench.record import Environment, write_atomically

FILE = "ci.json"
SCHEMA_VERSION = 1


class CiStudy(BaseModel):
    """A ci study's runs, and its samples of speed."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str = Field(description="ISO 8601, UTC")
    git_commit: str | None = None
    command: str
    environment: Environment
    runs: dict[str, str] = Field(description="method, as METHOD or METHOD/VARIANT -> run id")
    speed: dict[str, dict[str, list[float]]] = Field(
        description="method -> figure -> a sample a process: the median over rounds of steps taken in turn"
    )


def save_ci(study: CiStudy, folder: Path) -> None:
    """Write `ci.json` into `folder`, atomically."""
    write_atomically(folder / FILE, study.model_dump_json(indent=2, exclude_none=True) + "\n")


def load_ci(path: Path) -> CiStudy:
    """Read `ci.json`; raises UserError where it is missing, truncated, from a newer schema, or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a whole JSON file ({error}). Run the study again.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}; this bench reads up to {SCHEMA_VERSION}. Update bench.")
    try:
        return CiStudy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UserError(f"{path} is not a ci study: {where}: {first['msg']}.") from error
