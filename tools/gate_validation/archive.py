"""The ci studies of the trials, kept so that changed rules can be evaluated on them within a minute.

`studies/` holds a folder per batch, named 1, 2, ..., with a folder per trial and `baseline/` in it. A trial's folder is
empty if its study failed. `studies.tar.xz` holds the same at a hundredth of the size, because re-runs share most bytes.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from bench.errors import UserError
from bench.records.ci import copy_study

BASELINE = "baseline"
_FOLDER, _ARCHIVE = "studies", "studies.tar.xz"


def unpacked(folder: Path) -> Path:
    """The folder of studies in `folder`, unpacked if only the archive exists. Raises UserError if the archive cannot be
    read.
    """
    studies, archive = folder / _FOLDER, folder / _ARCHIVE
    if not studies.exists() and archive.exists():
        try:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            shutil.rmtree(studies, ignore_errors=True)
            raise UserError(f"cannot read {archive}: {error}. Delete it to run the trials again.") from error
    studies.mkdir(parents=True, exist_ok=True)
    return studies


def batches(studies: Path) -> list[Path]:
    """The folders of batches, first to last."""
    return sorted(studies.glob("[!.]*"), key=lambda path: int(path.name))


def keep(study: Path | None, place: Path) -> None:
    """Copy a ci study, without weights, to `place` in a batch's folder, atomically; None leaves an empty folder."""
    with tempfile.TemporaryDirectory(dir=place.parents[1], prefix=".") as scratch:
        new = Path(scratch) / place.name
        new.mkdir()
        if study is not None:
            copy_study(study, new)
        place.parent.mkdir(exist_ok=True)
        new.rename(place)


def pack(folder: Path) -> None:
    """Write the archive: equal studies give equal bytes."""
    archive = folder / _ARCHIVE
    temporary = archive.with_name(f".{archive.name}")
    with tarfile.open(temporary, "w:xz") as packed:
        for path in sorted((folder / _FOLDER).rglob("[!.]*")):
            packed.add(path, path.relative_to(folder), recursive=False, filter=_plain)
    temporary.replace(archive)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
