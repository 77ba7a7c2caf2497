"""The history as a static site: pages, scripts, a style sheet, and a small file per series."""

from bench.gate.dashboard.site import build

__all__ = ["build"]
