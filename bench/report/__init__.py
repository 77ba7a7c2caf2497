"""Reports from records: pages, tables and figures. Reads records only; needs neither torch nor the model."""

from bench.report.build import build
from bench.report.terminal import summary_table, verdicts

__all__ = ["build", "summary_table", "verdicts"]
