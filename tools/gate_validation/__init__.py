"""Validation of the regression gate: injected regressions, unchanged re-runs, and what the gate costs."""
