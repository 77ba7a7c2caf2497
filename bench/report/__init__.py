"""Reports from records: pages, tables and figures. Reads records only; needs neither torch nor the model."""

from bench.report.comparison import build, summary_table, verdicts

__all__ = ["build", "summary_table", "verdicts"]
