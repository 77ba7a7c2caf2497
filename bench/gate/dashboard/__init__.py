"""The history as a static site: pages, one script, one style sheet, and a small file a series."""

from bench.gate.dashboard.site import build

__all__ = ["build"]
