"""The ci studies of the experiment's trials, kept, so that rules which change are tried on them again in a minute.

`studies/` holds a folder a piece, 1 and so on, and in it a folder a trial, an empty one where the study broke down, and
`baseline/`; `studies.tar.xz` is the same packed, a hundredth of it, for nearly all of a rerun is what others hold.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
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


def pieces(studies: Path) -> list[Path]:
    """The folders of pieces, first to last."""
    return sorted(studies.glob("[!.]*"), key=lambda path: int(path.name))


def keep(study: Path | None, place: Path) -> None:
    """Copy a ci study, without weights, to `place` in the folder of a piece, whole; None leaves an empty folder."""
    with tempfile.TemporaryDirectory(dir=place.parents[1], prefix=".") as beside:
        new = Path(beside) / place.name
        new.mkdir() if study is None else copy_study(study, new)
        place.parent.mkdir(exist_ok=True)
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
