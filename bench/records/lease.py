"""One process at a time in a folder. The system releases the lock of a process that ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FILE = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks: nobody is kept out
_HELD = (errno.EAGAIN, errno.EACCES)  # in the words of POSIX and of Windows
_POLL = 0.5  # seconds

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text: nobody can read a byte that is locked
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def lease(folder: Path, when_held: Callable[[str], None]) -> Iterator[None]:
    """Hold `folder`, which is created, against other processes. It is removed again if it stays empty.

    If another process holds it, `when_held` is told which, in words, and may raise; then this waits for its end. Files
    in `folder` may have changed by then: read them inside. Raises OSError if `folder` cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / _FILE, when_held):
            yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def locked(path: Path, when_held: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """The same with a lock file at `path`, in a folder that exists; it is deleted at the end."""
    lock = _take(path)
    if lock is None:
        when_held(_holder(path))
    while lock is None:
        time.sleep(_POLL)
        lock = _take(path)
    try:
        os.truncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(PermissionError):  # Windows deletes no open file, so there it stays
            path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone, and opens a new one
        os.close(lock)


def _take(path: Path) -> int | None:
    """The descriptor of the lock file, locked; None if another process has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(lock)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            os.close(lock)
            if error.errno in _HELD:
                return None
            raise
    with suppress(FileNotFoundError):
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    os.close(lock)
    return None


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"
