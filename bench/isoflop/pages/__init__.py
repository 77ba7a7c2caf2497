"""The report of an isoFLOP study, from its records and `isoflop.json` alone."""

from pathlib import Path

from bench.isoflop.pages.page import write_isoflop

__all__ = ["write_isoflop", "write_page"]


def write_page(path: Path, reports: Path) -> Path:
    """Write the report of the study whose `isoflop.json` is at `path`; returns the page."""
    return write_isoflop(path.parent, reports)
