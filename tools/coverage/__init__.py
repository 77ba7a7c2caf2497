"""Simulations of the project's statistics: how often intervals cover the truth, and what verdicts come out.

`python -m tools.coverage` prints every table of docs/concepts/statistics.md.
"""
