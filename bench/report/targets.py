"""The page of a study of targets: each figure with its target, and the points behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.formats import DASH, decimal, duration, span
from bench.records.targets import Target, Targets, load_targets
from bench.report.decoding import decode_figures, decode_finding, decode_table
from bench.stats.interval import Interval
from bench.web.figures import BAD, GOOD
from bench.web.intervals import MOST_MARKS, Mark, Scale
from bench.web.page import Page, write_page
from bench.web.tables import Table

TEMPLATES = Path(__file__).parent / "templates"


def write_study(path: Path, reports: Path) -> Path:
    """Write `reports`/<study>/ of the targets file at `path`, with its page, figures and tables; returns the page."""
    study = load_targets(path)
    drawings, decode = decode_figures(study), decode_table(study)
    tables = [_targets_table(study), *([decode] if decode.rows else [])]
    page, answers = _page(study, path), [_answer(each) for each in study.targets]
    values = {"study": study, "tables": tables, "drawings": drawings, "answers": answers,
              "scale": Scale([each.mark for each in answers], [1.0])}  # fmt: skip
    return write_page(reports, page, "targets", drawings, tables, values, TEMPLATES)


@dataclass(frozen=True)
class Answer:
    """A target's row: its value over its limit, or the limit over the value, so that below 1 it is met."""

    target: Target
    mark: Mark
    measured: str


def _answer(target: Target) -> Answer:
    value, limit = target.value, target.at_most or target.at_least or 1.0
    share = Interval(value.median / limit, value.low / limit, value.high / limit)
    if target.at_least is not None:
        share = Interval(limit / value.median, limit / value.high, limit / value.low)
    return Answer(target, Mark(target.figure, share, GOOD if target.met else BAD), _measured(target))


def _page(study: Targets, path: Path) -> Page:
    return Page(
        name=study.study,
        kind="Speed" if "n_layers" in study.shape else "Regression gate",
        finding=_finding(study),
        facts=[study.subject, study.environment.device_name, f"{study.environment.threads} threads",
               f"torch {study.environment.torch}"],
        created=study.created,
        records=path.parent,
        commits=[study.git_commit] if study.git_commit else [],
        marks=[_answer(each).mark for each in study.targets][:MOST_MARKS],
        line=1.0,
    )  # fmt: skip


def _finding(study: Targets) -> str:
    """What was measured of decoding, where it was; how many targets are met, and the one that is missed by most, or
    met by least.
    """
    decoding, total = decode_finding(study), len(study.targets)
    missed = sum(not each.met for each in study.targets)
    count = f"{missed} of {total} targets missed" if missed else f"all {total} targets met"
    if decoding:
        return f"{decoding}; {count}"
    worst = max(study.targets, key=lambda each: _answer(each).mark.interval.value)
    measured = f"{worst.figure}, {decimal(worst.value.median)} ({worst.limit})"
    return f"{count[0].upper()}{count[1:]}, {'by most' if missed else 'the closest'}: {measured}"


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
