"""A comparison of runs with their dense baseline: its report, and its summary for the terminal."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.config.identity import digest
from bench.formats import DASH, aligned, decimal, scaled, times
from bench.records.record import Record
from bench.report.caveats import caveats, equal_tokens
from bench.report.charts import CURVES_NOTE, difference_figure, flop_parts, learning_curves
from bench.report.decoding import causal_routers_table, decoding_table, drift_figures
from bench.report.differences import Difference, differences, finding, verdict
from bench.report.figures import method_colours
from bench.report.load import (
    Comparison,
    Group,
    RunFiles,
    contract_words,
    group_runs,
    read_files,
    read_results,
    shared_settings,
)
from bench.report.optimal_size import SOURCE, size_words
from bench.report.page import Part, write_page
from bench.report.routing import accuracy_figure, expert_load_figures, heat_map_figures, heat_maps, weight_figures
from bench.report.tables import (
    comparison_table,
    flops_table,
    loss_cell,
    method_settings_table,
    parts_table,
    runs_table,
    versions_table,
)
from bench.report.tasks import lm_eval_table

_COLUMNS = 80  # of a terminal


@dataclass(frozen=True)
class Section:
    """What the page shows of one group of comparable runs."""

    id: str
    heading: str
    settings: str
    findings: list[tuple[str, str]]  # method, the first sentence of its verdict
    verdicts: list[tuple[str, str, str]]  # method, verdict, colour
    parts: list[Part]
    caveats: list[str]
    setup: Part
    config: str
    methods: list[tuple[str, str]]  # method, its settings
    commands: list[str]


def build(results: Path, reports: Path) -> list[Path]:
    """Write `reports`/<comparison>/ for every comparison below `results`; returns the pages.

    Damaged files are logged and named in the report of their comparison. Raises UserError if there is nothing to
    read or `reports` cannot be written.
    """
    comparisons, _ = read_results(results)
    return [write_report(comparison, reports) for comparison in comparisons]


def write_report(comparison: Comparison, reports: Path) -> Path:
    """Write the report of one comparison and return its page; raises UserError if it cannot be written."""
    folders = ["", *(group.comparison_hash for group in comparison.groups[1:])]
    sections = [
        _section(*each) for each in zip(comparison.groups, differences(comparison.groups), folders, strict=True)
    ]
    parts = [part for section in sections for part in (*section.parts, section.setup)]
    values = {
        "name": comparison.name,
        "problems": comparison.problems,
        "sections": sections,
        "created": max(run.record.run.created for group in comparison.groups for run in group.runs),
    }
    drawings = [drawing for part in parts for drawing in part.sheets]
    tables = [table for part in parts for table in part.tables]
    return write_page(reports / folder_name(comparison.name), "comparison", drawings, tables, values)


def folder_name(name: str) -> str:
    """`name` as one plain folder name; a changed name gets a fingerprint, so two names never share a folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain and plain == name else f"{plain or 'comparison'}-{digest(name, 6)}"


def summary_table(records: Sequence[Record], results: Path | None = None) -> str:
    """The methods against their dense baseline, as aligned text, one table per comparison hash among `records`.

    With `results`, the folder they were saved below, intervals include the choice of validation documents.
    """
    groups = _groups(records, results)
    return "\n\n".join(_aligned(*each) for each in zip(groups, differences(groups), strict=True))


def verdicts(records: Sequence[Record], results: Path | None = None) -> list[str]:
    """A verdict, wrapped for the terminal, for each method that has a dense baseline among `records`."""
    groups = _groups(records, results)
    return [
        textwrap.fill(f"{name}: {verdict(each)}", _COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
        for group, compared in zip(groups, differences(groups), strict=True)
        for each in compared
        for name in [f"{each.label} ({group.settings})" if group.settings else each.label]
    ]


def _section(group: Group, compared: Sequence[Difference], folder: str) -> Section:
    """The section of `group`, with its figures and tables in a sub-folder of that name, if given."""
    first = group.methods[0].first
    colours = method_colours([method.label for method in group.methods])
    parts = [
        Part("table", "Comparison with the dense baseline", drawings=_made(difference_figure(group, compared)),
             tables=[comparison_table(group, compared), runs_table(group)]),
        Part("curves", "Learning curves", [CURVES_NOTE], learning_curves(group)),
        Part("flops", "FLOPs", drawings=[flop_parts(group)], tables=[flops_table(group), parts_table(group)]),
        Part("routing", "Routing", heat_maps=heat_maps(group), pictures=heat_map_figures(group),
             drawings=[*_made(accuracy_figure(group)), *weight_figures(group), *expert_load_figures(group)]),
        Part("decoding", "Causal routers and decoding", drawings=drift_figures(group),
             tables=[causal_routers_table(group), decoding_table(group)]),
        Part("tasks", "Tasks (lm-eval)", tables=[lm_eval_table(group)]),
    ]  # fmt: skip
    setup = Part("config", "Settings and versions", tables=[method_settings_table(group), versions_table(group)])
    return Section(
        id=group.comparison_hash,
        heading=group.differs or group.comparison_hash,
        settings=_settings_line(group),
        findings=[(each.label, finding(each)) for each in compared],
        verdicts=[(each.label, verdict(each), colours[each.label]) for each in compared],
        parts=[part.within(folder) for part in parts if part],
        caveats=caveats(group),
        setup=setup.within(folder),
        config=_pretty(shared_settings(first.config)),
        methods=[(method.label, _pretty(method.first.config.get("method"))) for method in group.methods],
        commands=list(dict.fromkeys(run.record.command for run in group.runs)),
    )


def _made(drawing: Any) -> list[Any]:
    return [drawing] if drawing else []


def _settings_line(group: Group) -> str:
    first = group.methods[0].first
    model, data = (group.twin.first if group.twin else first).model, first.config.get("data") or {}
    tokens = equal_tokens(group)
    shapes = [(method.label, method.first.model) for method in group.others]
    others = [
        f", {label} {own.n_layers} × {own.d_model}"
        for label, own in shapes
        if (own.n_layers, own.d_model) != (model.n_layers, model.d_model)
    ]
    return (
        f"Compared {contract_words(first.contract)}: {scaled(first.flops.budget)} training FLOPs, "
        f"{f'{scaled(tokens)} tokens, ' if tokens else ''}"
        f"data {data.get('name', 'unnamed')}, context {model.context}, dense {model.n_layers} layers × {model.d_model} "
        f"wide with {scaled(model.params_total)} parameters{''.join(others)}, on {first.environment.device_name}, "
        f"{first.training.dtype}"
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _groups(records: Sequence[Record], results: Path | None) -> list[Group]:
    if results is None:
        return group_runs([RunFiles(record) for record in records])
    return group_runs([read_files(record, results / record.run.name / record.run.id)[0] for record in records])


def _aligned(group: Group, differences: Sequence[Difference]) -> str:
    """A line per method, 80 columns wide with the usual names: labels to the left, numbers to the right."""
    compared = {difference.label: difference for difference in differences}
    rows = [["method", "n", "loss", "minus dense (95 % CI)", "verdict", "speed-up"]]
    for method in group.methods:
        losses = [run.record.quality.val_loss_nats for run in method.comparable if run.record.quality]
        difference = compared.get(method.label)
        speed = difference.speedup if difference else None
        rows.append(
            [
                method.label,
                str(len(method.runs)),
                decimal(fmean(losses) if losses else None),
                loss_cell(difference),
                difference.verdict if difference and difference.loss else DASH,
                times(speed.value if speed else None),
            ]
        )
    first = group.methods[0].first
    sizes = ", ".join(f"{method.label} {size_words(method.first)}" for method in group.methods)
    return "\n".join(
        [
            f"{first.run.name}, {contract_words(first.contract)} (contract {first.contract})",
            *([group.settings] if group.settings else []),
            "validation loss in nats/token, n seeds",
            *aligned(rows, numbers=True),
            *textwrap.wrap(f"tokens/parameter (× optimal size): {sizes}. Optimal: {SOURCE}.", _COLUMNS),
        ]
    )
