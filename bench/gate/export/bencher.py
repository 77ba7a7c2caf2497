"""The current figures in Bencher Metric Format: benchmark -> measure -> value, with bounds where there are any.

https://bencher.dev/docs/reference/bencher-metric-format/
"""

from __future__ import annotations

import json

from bench.gate.compare import Verdict


def bencher(verdict: Verdict) -> str:
    """A benchmark a method, a measure a figure by its recorded name."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (method, name), figure in verdict.figures.items():
        metric = {"value": figure.value}
        if figure.low is not None and figure.high is not None:
            metric |= {"lower_value": figure.low, "upper_value": figure.high}
        found.setdefault(method, {})[name] = metric
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
