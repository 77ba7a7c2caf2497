"""The page of a study of targets: each figure with its target, and the points behind it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.formats import DASH, decimal, duration, span
from bench.records.targets import Target, Targets, load_targets
from bench.report.decoding import decode_figures, decode_table
from bench.web.page import Page, write_page
from bench.web.tables import Table

TEMPLATES = Path(__file__).parent / "templates"


def write_study(path: Path, reports: Path) -> Path:
    """Write the page of the targets file at `path`; returns the page."""
    study = load_targets(path)
    drawings = decode_figures(study)
    tables = [table for table in (_targets_table(study), decode_table(study)) if table.rows]
    values = {"study": study, "tables": tables, "drawings": drawings}
    return write_page(reports, _page(study, path), "targets", drawings, tables, values, TEMPLATES)


def _page(study: Targets, path: Path) -> Page:
    met = sum(each.met for each in study.targets)
    return Page(
        name=study.study,
        kind="Speed",
        finding=f"{study.subject}: {met} of {len(study.targets)} targets met",
        facts=[
            study.environment.device_name,
            f"{study.environment.threads} threads",
            f"torch {study.environment.torch}",
        ],
        created=study.created,
        records=path.parent,
        commits=[study.git_commit] if study.git_commit else [],
    )


def _targets_table(study: Targets) -> Table:
    rows = [
        [
            each.figure,
            _measured(each),
            each.limit,
            "met" if each.met else "missed",
            duration(each.step_seconds.median if each.step_seconds else None),
            decimal(each.flop_ratio, 4) if each.flop_ratio else DASH,
        ]
        for each in study.targets
    ]
    columns = ["figure", "measured (95 % CI)", "target", "result", "step time", "FLOPs of a step, over dense"]
    shown = [n for n in range(len(columns)) if any(row[n] != DASH for row in rows)]
    rows, columns = [[row[n] for n in shown] for row in rows], [columns[n] for n in shown]
    caption = "Medians over rounds, with the 95 % CI of the median. Ratios are of steps timed alternately."
    return Table("targets", caption, columns, rows, pd.json_normalize([each.model_dump() for each in study.targets]))


def _measured(target: Target) -> str:
    value = target.value
    measured = f"{decimal(value.median)} ({span(value.low, value.high, decimal)})"
    return f"{measured} {target.unit}" if target.unit else measured
