"""Compares conditional-computation transformers at matched FLOPs.

    import bench

    runs = bench.load("results/isoflop_cpu")  # finished runs as objects; runs.frame() has a row per run
    runs = bench.compare("mod", "moe", seeds=(0, 1))  # trains, or reuses what is finished
    bench.fit  # isoFLOP fits on anyone's points

Each is imported when it is first used.
"""

import ctypes
import os
from importlib import import_module
from typing import Any

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


__all__ = ["UserError", "compare", "fit", "load"]

_WHERE = {"load": "bench.api", "compare": "bench.api", "UserError": "bench.errors"}


def __getattr__(name: str) -> Any:
    if name == "fit":
        return import_module("bench.fit")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
