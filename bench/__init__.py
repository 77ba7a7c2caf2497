"""Compares conditional-computation transformers at matched FLOPs.

    import bench

    runs = bench.load("results/isoflop_cpu")  # finished runs as objects; runs.frame() has a row per run
    runs = bench.compare("mod", "moe", seeds=(0, 1))  # trains, or reuses finished runs
    bench.fit  # isoFLOP fits to your own points

Each is imported on first use.
"""

from importlib import import_module
from typing import Any

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
