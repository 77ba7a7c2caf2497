"""Reports from records: pages, tables and figures. Reads records only; needs neither torch nor the model."""

from bench.report.terminal import summary_table, verdicts
from bench.report.write import build

__all__ = ["build", "summary_table", "verdicts"]
