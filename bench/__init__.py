"""Compares conditional-computation transformers at matched FLOPs."""

import ctypes
import os

# Large CPU tensors on huge pages: fresh ones cost a page fault per 2 MiB in place of one per 4 KiB, which is
# several percent of a training step. torch reads this once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def _keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next one, where it is the C library.

    By default it hands large tensors back to the kernel, which clears every page again when the next step asks for
    it: up to an eighth of a step, in whichever model of a comparison happens to lie last in memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_TRIM_THRESHOLD, -1)


_keep_freed_memory()
