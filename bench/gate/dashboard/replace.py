"""A folder that changes as a whole: written beside its place, and put there once it is complete."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_SECONDS = 3600  # building takes seconds


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """An empty folder to write into, which then takes the place of `place`.

    Whatever goes wrong before, what was there stays. Raises OSError.
    """
    fresh, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    _clear(place)
    shutil.rmtree(fresh, ignore_errors=True)  # of a killed process of this number
    fresh.mkdir(parents=True)
    try:
        yield fresh
        _swap(fresh, place, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove what killed processes had not finished; a site that one took aside only where there is another."""
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
        if there:
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)
