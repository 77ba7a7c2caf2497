"""The ci studies of the experiment's trials, kept, so that rules which change are tried on them again in a minute.

`studies/` holds a folder a trial, an empty one where the study broke down, and `baseline/`; `studies.tar.xz` is the
same packed, a hundredth of it, for nearly all of a rerun is what every other holds.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from bench.errors import UserError
from bench.gate.accept import copy_study

BASELINE = "baseline"
_FOLDER, _ARCHIVE = "studies", "studies.tar.xz"


def opened(folder: Path) -> Path:
    """The folder of studies in that of the experiment, unpacked where only the archive is there.

    Raises UserError where the archive cannot be read.
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


def keep(study: Path | None, place: Path) -> None:
    """Copy a ci study, without weights, to `place`, whole or not at all; None leaves an empty folder there."""
    new = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    if study is None:
        new.mkdir()
    else:
        copy_study(study, new)
    new.rename(place)


def pack(folder: Path) -> None:
    """Write the archive: the same bytes for the same studies."""
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
