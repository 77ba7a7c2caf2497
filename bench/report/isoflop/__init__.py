"""The report of an isoFLOP study, from its records and `isoflop.json` alone."""

from bench.report.isoflop.page import write_isoflop

__all__ = ["write_isoflop"]
