"""The current figures for github-action-benchmark, which wants a file a direction.

https://github.com/benchmark-action/github-action-benchmark: arrays of {name, value, unit, range?, extra?} for its
tools customSmallerIsBetter and customBiggerIsBetter.
"""

from __future__ import annotations

import json
from typing import Any

from bench.gate.compare import Verdict
from bench.gate.load import Figure
from bench.gate.rules import rule_of, words

_UNITS = {"nats": "nats", "noncausal": "nats", "loss": "nats", "bytes": "bytes", "bits_per_byte": "bits a byte"}


def github_action_benchmark(verdict: Verdict) -> dict[str, str]:
    """File name -> text. A figure that should stay the same is in both, so that a move either way raises an alert."""
    smaller: list[dict[str, Any]] = []
    bigger: list[dict[str, Any]] = []
    for (method, name), figure in verdict.figures.items():
        rule = rule_of(name, method)
        better = rule.better if rule is not None else "same"
        for entries, other in ((smaller, "higher"), (bigger, "lower")):
            if better != other:
                entries.append(_entry(method, name, figure))
    files = {"customSmallerIsBetter.json": smaller, "customBiggerIsBetter.json": bigger}
    return {name: json.dumps(entries, indent=2, ensure_ascii=False) + "\n" for name, entries in files.items()}


def _entry(method: str, name: str, figure: Figure) -> dict[str, Any]:
    entry = {"name": f"{method}: {words(name)}", "value": figure.value, "unit": _unit(name), "extra": name}
    if figure.low is not None and figure.high is not None:
        entry["range"] = f"{figure.low:.4g} to {figure.high:.4g}"
    return entry


def _unit(name: str) -> str:
    part, last = name.split(".", 1)[0], name.rsplit(".", 1)[-1]
    if part == "flops" or last.endswith("_per_token"):
        unit = "bytes" if "bytes" in last else "FLOPs"
        return f"{unit} a token" if last.endswith("_per_token") else unit
    return next((unit for ending, unit in _UNITS.items() if last.endswith(ending)), "")
