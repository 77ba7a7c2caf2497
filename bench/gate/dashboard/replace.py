"""A folder that changes as a whole: written beside its place, and put there once it is complete."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ABANDONED_SECONDS = 3600  # building takes seconds


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """An empty folder to write into, which then takes the place of `place`.

    Whatever goes wrong before, what was there stays. Raises OSError.
    """
    fresh, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    _clear(place)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        _swap(fresh, place, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove what this process, or any that was killed long ago, had not finished."""
    for left in place.parent.glob(f".{place.name}.*.new"):
        if left.suffixes[-2:-1] == [f".{os.getpid()}"] or time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _swap(fresh: Path, place: Path, old: Path) -> None:
    there = place.exists()
    if there:
        os.rename(place, old)
    try:
        os.rename(fresh, place)
    except OSError:
        if there:
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)
