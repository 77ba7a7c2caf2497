"""Validation of the regression gate: injected regressions, unchanged re-runs, and the cost of the gate."""
