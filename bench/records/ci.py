"""The ci study on disk: `ci.json` next to its runs' records, and how one ci study replaces another.

The records hold what is deterministic. `ci.json` names the run of each method and holds speed samples for a test.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from bench.errors import UserError
from bench.records.convert import is_packed, pack
from bench.records.files import StrictModel, beside, load
from bench.records.packed import PACKS, is_file, read_bytes, run_name, texts_of
from bench.records.record import Environment, Ratio

FILE = "ci.json"
SCHEMA_VERSION = 2
_KEPT = tuple(PACKS)  # without weights


class CiStudy(StrictModel):
    """A ci study's runs and its speed samples."""

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str = Field(description="ISO 8601, UTC")
    git_commit: str | None = None
    command: str
    environment: Environment
    runs: dict[str, Annotated[str, AfterValidator(run_name)]] = Field(
        description="method, as METHOD or METHOD/VARIANT -> run id"
    )
    speed: dict[str, dict[str, list[Ratio]]] = Field(
        description="method -> figure -> a sample per process: the median over rounds of steps timed alternately"
    )
    encoder_seconds: list[Ratio] = Field(
        [], description="of a training step of torch's own encoder, timed alternately with those; a sample per process"
    )


def load_ci(path: Path) -> CiStudy:
    """Read `ci.json`; raises UserError if it is missing, truncated, from a newer schema, or not one."""
    return load(path, CiStudy, "a ci study", "Run the study again.", SCHEMA_VERSION)


def replace_study(target: Path, new: Path) -> None:
    """Replace the ci study in `target` by a copy of the one in `new`, without weights; on failure nothing changes.

    If `target` is packed, so is the new one. Raises UserError if it cannot be written, if either is no ci study, or if
    `target` holds files of no study.
    """
    target, new = target.resolve(), new.resolve()
    if target in (new, *new.parents) or new in target.parents:
        raise UserError(f"{target} is not replaced: it and {new} are the same folder, or one is inside the other.")
    _check_replaceable(target)
    try:
        with beside(target) as fresh:
            copy_study(new, fresh)
            if is_packed(target):
                pack(fresh)
    except OSError as error:
        raise UserError(f"cannot replace {target}: {error.strerror}.") from error


def copy_study(study: Path, folder: Path) -> None:
    """Copy `ci.json` and the runs that it names into the empty `folder`: what the gate and reports read, no weights.

    Raises UserError if `ci.json` cannot be read or a file to copy is a link.
    """
    runs = dict.fromkeys(load_ci(study / FILE).runs.values())
    shutil.copyfile(study / FILE, folder / FILE)
    for run_id in runs:
        (folder / run_id).mkdir()
        for source in (study / run_id / name for name in _KEPT):
            if source.is_symlink() or source.parent.is_symlink():
                raise UserError(f"{source} is a link and is not accepted; copy the file there instead.")
            if is_file(source):
                (folder / run_id / source.name).write_bytes(read_bytes(source))


def _check_replaceable(folder: Path) -> None:
    """Raises UserError if `folder` is no ci study, or holds anything that no run of it wrote."""
    runs = {folder / run_id for run_id in load_ci(folder / FILE).runs.values()}
    for path in sorted(folder.rglob("*")):
        if path.parent == folder and path.name in PACKS.values():
            foreign = [run for run in texts_of(path) if folder / run not in runs]
            if foreign:
                raise UserError(f"{folder} is not replaced: {path.name} holds {foreign[0]}, which no study wrote.")
            continue
        of_a_run = path.parent in runs and path.is_file() and (path.name in _KEPT or path.suffix == ".safetensors")
        if not (path in runs or of_a_run or path == folder / FILE):
            raise UserError(f"{folder} is not replaced: it holds {path.relative_to(folder)}, which no study wrote.")
