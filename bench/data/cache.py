"""Folders that are either complete or absent, even if building one is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from bench.errors import UserError
from bench.records.files import check_writable

_MANIFEST = "manifest.json"


def cached_folder(folder: Path, build: Callable[[Path], None]) -> bool:
    """Makes sure that `folder` exists and is complete; True if it had to be built.

    `build` fills a temporary folder next to it, which is then renamed, so a reader never sees a partial one. A damaged
    folder is built again. Of several builders at once the first to finish wins: unlike `records.files.beside`, this
    never replaces a complete folder, which other processes may be reading. Raises UserError if the place cannot be
    written to or is full.
    """
    if _is_whole(folder):
        return False
    if folder.exists():
        print(f"{folder} is damaged or incomplete: building it again.")
    check_writable(folder.parent, "data.cache_dir")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            build(temporary)
            manifest = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            _install(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write data.cache_dir={str(folder.parent)!r}: {error.strerror or error}. "
            "Free some space there or set data.cache_dir to another folder."
        ) from error
    return True


def _install(temporary: Path, folder: Path) -> None:
    if _is_whole(folder):  # another process was faster
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(temporary, folder)
    except OSError:
        if not _is_whole(folder):
            raise


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(_fingerprint(folder / name) == expected for name, expected in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def _fingerprint(path: Path) -> list[int]:
    """Size in bytes and CRC-32: enough to notice a truncated or overwritten file, at disk speed."""
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return [path.stat().st_size, checksum]
