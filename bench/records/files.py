"""Files that are complete or absent: atomic writing, atomic replacement of folders, strict loading."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from bench.errors import UserError
from bench.records.lease import locked
from bench.records.packed import read_bytes

SCHEMA_VERSION = 1
LOADING = {"loading": True}  # pydantic's context while a file is read
Kind = TypeVar("Kind", bound=BaseModel)
_ABANDONED_SECONDS = 3600  # building takes seconds


class StrictModel(BaseModel):
    """A file of JSON, or a part of one; no other keys are allowed."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def save(self, path: Path) -> Path:
        """Write it to `path`, atomically, without what is absent; returns `path`."""
        write_atomically(path, self.model_dump_json(indent=2, exclude_none=True) + "\n")
        return path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` atomically: neither a crash nor a full disk leaves half a file. Raises UserError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Free some space or choose another folder.") from error
    finally:
        with suppress(OSError):  # gone if it has become `path`
            temporary.unlink()


def make_folder(folder: Path) -> Path:
    """Create `folder`, below results_dir, and return it. Raises UserError, naming that key, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error, "results_dir") from error
    return folder


def check_writable(folder: Path, key: str) -> None:
    """Raise UserError, naming the `key` that chose it, if `folder` cannot be written; leaves nothing behind."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error, key) from error
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def _cannot_write(folder: Path, error: OSError, key: str) -> UserError:
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    reason = f"{file} is a file, not a folder" if file else error.strerror
    return UserError(f"cannot write to {folder}: {reason}. Set {key} to another folder.")


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """An empty folder to write into, which then replaces `place`. On any failure before that, `place` is unchanged.
    Raises OSError.
    """
    fresh, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    _clear(place)
    shutil.rmtree(fresh, ignore_errors=True)  # of a killed process of this number
    fresh.mkdir(parents=True)
    try:
        yield fresh
        with locked(place.with_name(f".{place.name}.lock")):
            _swap(fresh, place, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove what killed processes left unfinished; a folder that one moved aside only if its place is taken."""
    ends = "new|old" if place.exists() else "new"
    unfinished = re.compile(rf"\.{re.escape(place.name)}\.\d+\.({ends})")
    for left in place.parent.iterdir() if place.parent.is_dir() else ():
        if unfinished.fullmatch(left.name):
            with suppress(FileNotFoundError):  # another process was faster
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)


def _swap(fresh: Path, place: Path, old: Path) -> None:
    there = place.exists()
    if there:
        shutil.rmtree(old, ignore_errors=True)  # of a killed process of this number
        os.rename(place, old)
    try:
        os.rename(fresh, place)
    except OSError:
        try:
            if there:
                os.rename(old, place)
        except OSError as error:
            raise UserError(f"cannot restore {place}: {error.strerror}. Its content is in {old}.") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def load(path: Path, kind: type[Kind], what: str, mend: str, newest: int = SCHEMA_VERSION) -> Kind:
    """Read a JSON file as `kind`, strictly: text is not taken for a number, nor a number for a truth value.

    what: the kind of file, in words. mend: what to do about an incomplete one. Raises UserError if it is missing,
    truncated, of a schema newer than `newest`, or not of that kind.
    """
    try:
        content = from_json(read_bytes(path), allow_inf_nan=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not a complete JSON file ({error}). {mend}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > newest:
        raise UserError(f"{path} has schema version {version}; this bench reads up to {newest}. Update bench.")
    if any(abs(number) > sys.float_info.max for number in _numbers(content)):
        raise UserError(f"{path} is not {what}: it holds a number too large for any measurement.")
    try:
        return kind.model_validate(content, strict=True, context=LOADING)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UserError(f"{path} is not {what}: {where}: {first['msg']}.") from error


def _numbers(part: Any) -> Iterator[int | float]:
    if isinstance(part, dict):
        part = part.values()
    elif isinstance(part, int | float):
        yield part
        return
    elif not isinstance(part, list):
        return
    for each in part:
        yield from _numbers(each)
