"""Making the current side the new baseline."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.errors import UserError
from bench.records.ci import FILE, load_ci
from bench.records.convert import is_packed, pack
from bench.records.packed import PACKS, is_file, read_bytes, texts_of

_KEPT = tuple(PACKS)  # weights are not


def accept(current: Path, baseline: Path) -> None:
    """Put a copy of the ci study `current`, without weights, in the place of `baseline`: or nothing is changed.

    Where the baseline is packed, so is the new one.
    Raises UserError where that cannot be written, either is no ci study, or `baseline` holds what is not a study's.
    """
    current, baseline = current.resolve(), baseline.resolve()
    if baseline in (current, *current.parents) or current in baseline.parents:
        raise UserError(f"{baseline} is not replaced: it and {current} are one folder, or one is inside the other.")
    _check_replaceable(baseline)
    try:
        place = Path(tempfile.mkdtemp(dir=baseline.parent, prefix=f".{baseline.name}."))
        try:
            copy_study(current, place / "new")
            if is_packed(baseline):
                pack(place / "new")
            _swap(place / "new", baseline, place / "old")
        finally:
            if baseline.exists():  # or `place` holds the only copy there is
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot replace {baseline}: {error.strerror}.") from error


def copy_study(current: Path, new: Path) -> None:
    """Copy what the gate and reports read of a ci study to the folder `new`: `ci.json` and the runs that it names.

    Raises UserError where `ci.json` cannot be read, or a link in the place of one of these would be followed elsewhere.
    """
    study = load_ci(current / FILE)
    new.mkdir(parents=True)
    shutil.copyfile(current / FILE, new / FILE)
    for run_id in dict.fromkeys(study.runs.values()):
        (new / run_id).mkdir()
        for source in (current / run_id / name for name in _KEPT):
            if source.is_symlink() or source.parent.is_symlink():
                raise UserError(f"{source} is a link to elsewhere: it is not accepted.")
            if is_file(source):
                (new / run_id / source.name).write_bytes(read_bytes(source))


def _check_replaceable(baseline: Path) -> None:
    """Raises UserError where `baseline` is no ci study, or holds anything that no run of it wrote."""
    runs = {baseline / run_id for run_id in load_ci(baseline / FILE).runs.values()}
    for path in sorted(baseline.rglob("*")):
        if path.parent == baseline and path.name in PACKS.values():
            foreign = [run for run in texts_of(path) if baseline / run not in runs]
            if not foreign:
                continue
            raise UserError(f"{baseline} is not replaced: {path.name} holds {foreign[0]}, which no study wrote.")
        of_a_run = path.parent in runs and path.is_file() and (path.name in _KEPT or path.suffix == ".safetensors")
        if not (path in runs or of_a_run or path == baseline / FILE):
            raise UserError(f"{baseline} is not replaced: it holds {path.relative_to(baseline)}, which no study wrote.")


def _swap(new: Path, target: Path, old: Path) -> None:
    """Move what is at `target` to `old` and `new` to `target`, or put the old one back."""
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        try:
            old.rename(target)
        except OSError as error:
            raise UserError(f"cannot put {target} back: {error.strerror}. It is whole, in {old}.") from error
        raise
