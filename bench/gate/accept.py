"""Making the current side the new baseline."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.ci import FILE
from bench.errors import UserError

_KEPT = (FILE, "record.json", "steps.csv", "documents.csv", "routing.json")  # weights are not


def accept(current: Path, baseline: Path) -> None:
    """Put a copy of `current`, without weights, in the place of `baseline`: all of it, or nothing is changed.

    Raises UserError where that cannot be written, or `baseline` holds what is not a study's.
    """
    foreign = [path for path in baseline.glob("**/*") if path.is_file() and not _known(path)]
    if foreign:
        raise UserError(
            f"{baseline} is not replaced: it holds {foreign[0].relative_to(baseline)}, which no study wrote."
        )
    if baseline.resolve() in (current.resolve(), *current.resolve().parents):
        raise UserError(f"{baseline} is not replaced: {current} is the same folder or inside it.")
    try:
        with tempfile.TemporaryDirectory(dir=baseline.parent, prefix=f".{baseline.name}.") as place:
            new, old = Path(place) / "new", Path(place) / "old"
            copy_study(current, new)
            baseline.rename(old)
            new.rename(baseline)
    except OSError as error:
        raise UserError(f"cannot replace {baseline}: {error.strerror}.") from error


def copy_study(current: Path, new: Path) -> None:
    """Copy the files of a study that the gate and reports read to the folder `new`."""
    for path in sorted(current.glob("**/*")):
        if path.is_file() and path.name in _KEPT:
            target = new / path.relative_to(current)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _known(path: Path) -> bool:
    return path.name in _KEPT or path.suffix in (".safetensors", ".json")
