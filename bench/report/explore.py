"""Data of the page's scripts: every run with its figures and varying settings, and its curve, thinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.report.charts import AXES, moving_mean
from bench.report.differences import figure
from bench.report.load import Group, RunFiles, flatten, shared_settings, varying_keys, written
from bench.report.tables import ROWS
from bench.web.data import short
from bench.web.figures import method_colours, themed

_POINTS = 40_000  # of all curves together
_FEWEST, _MOST = 20, 160  # points of a curve
# Shown before a reader chooses columns; and at most so many of the settings that vary.
_SHOWN = ("quality.val_loss_nats", "training.tokens", "speed.train_speedup_realised.median", "memory.peak_bytes")
_SHOWN_SETTINGS = 3


def _colours(groups: Sequence[Group]) -> dict[str, str]:
    """Every method of a page with its colour."""
    names = dict.fromkeys(method.label for group in groups for method in group.methods)
    return {label: themed(colour) for label, colour in method_colours(list(names)).items()}


def runs_data(groups: Sequence[Group]) -> dict[str, Any]:
    """`columns` (name, kind, shown) and, by column, `values` of every run; `colours` of methods.

    A column without a value, and a setting that no two runs differ in, is left out.
    """
    runs = [(method.label, run) for group in groups for method in group.methods for run in method.runs]
    columns: list[dict[str, Any]] = []
    values: list[list[Any]] = []

    def add(name: str, kind: str, own: list[Any], shown: bool) -> None:
        if any(value not in (None, "") for value in own):
            columns.append({"name": name, "kind": kind, "shown": shown})
            values.append(own)

    records = [run.record for _, run in runs]
    add("run", "text", [record.run.id for record in records], True)
    add("method", "text", [label for label, _ in runs], True)
    settings = _varying(groups)
    for place, (key, own) in enumerate(settings.items()):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in own)
        kind = "significant" if numbers else "text"
        add(key, kind, own if numbers else [written(value) for value in own], place < _SHOWN_SETTINGS)
    add("seed", "count", [record.run.seed for record in records], True)
    add("status", "text", [record.run.status for record in records], True)
    for row in ROWS:
        add(row.name, row.write.__name__, short([figure(record, row.path) for record in records]), row.path in _SHOWN)
    add("message", "text", [record.run.message or "" for record in records], False)
    return {"columns": columns, "values": values, "colours": _colours(groups)}


def curves_data(groups: Sequence[Group]) -> dict[str, Any] | None:
    """Smoothed training loss of every run, by its place in `runs_data`; None if no run logged its steps.

    pooled: whether runs of a method have the same settings, so that their mean is one of seeds.
    """
    runs = [(method.label, run) for group in groups for method in group.methods for run in method.runs]
    points = max(_FEWEST, min(_MOST, _POINTS // max(1, len(runs))))
    curves = [
        {"row": row, "method": label, "x": x, "y": y, "end": _end(run)}
        for row, (label, run) in enumerate(runs)
        if run.steps is not None and len(run.steps)
        for x, y in [_curve(run, points)]
    ]
    if not curves:
        return None
    return {
        "axes": [{"name": unit, "label": label} for _, unit, label in AXES],
        "curves": curves,
        "pooled": len(groups) == 1,
    }


def _curve(run: RunFiles, points: int) -> tuple[list[list[float | None]], list[float | None]]:
    """x by axis, and y."""
    assert run.steps is not None
    keep = np.unique(np.linspace(0, len(run.steps) - 1, min(len(run.steps), points)).astype(int))
    loss = moving_mean(run.steps["loss"]).to_numpy()[keep]
    return [short(run.steps[column].to_numpy()[keep].tolist(), 4) for column, _, _ in AXES], short(loss.tolist(), 4)


def _end(run: RunFiles) -> float | None:
    """The validation loss at the end of training, where it is comparable."""
    quality = run.record.quality
    return short([quality.val_loss_nats], 5)[0] if quality and run.record.comparable else None


def _varying(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Settings shared within a group that differ between groups, a value for each run."""
    settings = [flatten(shared_settings(group.runs[0].record.config)) for group in groups]
    return {
        key: [own.get(key, "") for group, own in zip(groups, settings, strict=True) for _ in group.runs]
        for key in varying_keys(settings)
    }
