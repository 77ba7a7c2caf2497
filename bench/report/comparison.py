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
from bench.records.ci import FILE as CI
from bench.records.record import Record
from bench.report.answer import Screen, finding_of_many, first_screen
from bench.report.caveats import caveats, equal_tokens
from bench.report.charts import CURVES_NOTE, difference_figure, flop_parts, learning_curves
from bench.report.decoding import causal_routers_table, decoding_table, drift_figures
from bench.report.differences import Difference, differences, verdict
from bench.report.explore import curves_data, runs_data
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
from bench.report.routing import accuracy_figure, expert_load_figures, heat_map_figures, passages, weight_figures
from bench.report.tables import (
    comparison_table,
    flops_table,
    loss_cell,
    method_settings_table,
    parts_table,
    runs_table,
    versions_table,
)
from bench.report.tasks import Accuracies, accuracies, lm_eval_table
from bench.web.data import data_element
from bench.web.intervals import Scale
from bench.web.page import Page, Part, write_page

_COLUMNS = 80  # of a terminal
_WHOLE = 4  # groups that a page shows whole; of more it shows the answers, curves and runs together, and their tables
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """What the page shows of one group of comparable runs."""

    id: str
    heading: str
    settings: str
    facts: list[str]
    screen: Screen
    tasks: Accuracies | None
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
    groups, compared = comparison.groups, differences(comparison.groups)
    alone, whole = len(groups) == 1, len(groups) <= _WHOLE
    folders = ["", *(group.comparison_hash for group in groups[1:])]
    sections = [
        _section(group, own, folder, _parts(group, own, alone, whole))
        for group, own, folder in zip(groups, compared, folders, strict=True)
    ]
    curves = Part("curves", "Learning curves", [CURVES_NOTE], learning_curves(groups[0]) if alone else ())
    runs = Part("runs", "Runs", tables=[runs_table(groups)])
    parts = [curves, runs, *(part for section in sections for part in (*section.parts, section.setup))]
    loss_curves = curves_data(groups)
    marks = [mark for section in sections for mark in section.screen.marks]
    values = {
        "name": comparison.name,
        "problems": comparison.problems,
        "sections": sections,
        "whole": whole,
        "scale": Scale(marks),
        "curves": curves if loss_curves else None,
        "runs": runs,
        "data": [data_element("runs-data", runs_data(groups)), data_element("curves-data", loss_curves)],
        "caveats": list(dict.fromkeys(line for section in sections for line in section.caveats)),
    }
    drawings = [drawing for part in parts for drawing in part.sheets]
    tables = [table for part in parts for table in part.tables]
    return write_page(reports, _page(comparison, sections), "comparison", drawings, tables, values, TEMPLATES)


def _page(comparison: Comparison, sections: Sequence[Section]) -> Page:
    records = [run.record for group in comparison.groups for run in group.runs]
    screens, baseline = [section.screen for section in sections], (comparison.folder / CI).exists()
    finding = screens[0].finding if len(screens) <= _WHOLE else finding_of_many(screens)
    return Page(
        name=folder_name(comparison.name),
        kind="Regression gate" if baseline else "Comparison with dense",
        finding=f"The baseline of the regression gate: {len(records)} methods on a fixed seed" if baseline else finding,
        facts=sections[0].facts if len(screens) <= _WHOLE else [f"{len(records)} runs", f"{len(screens)} settings"],
        created=max(record.run.created for record in records),
        records=comparison.folder,
        commits=list(dict.fromkeys(record.run.git_commit for record in records if record.run.git_commit)),
        marks=screens[0].marks,
    )


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


def _section(group: Group, compared: Sequence[Difference], folder: str, parts: Sequence[Part]) -> Section:
    """The section of `group`, with its figures and tables in a sub-folder of that name, if given."""
    first = group.methods[0].first
    setup = Part("config", "Settings and versions", tables=[method_settings_table(group), versions_table(group)])
    return Section(
        id=group.comparison_hash,
        heading=group.differs or group.comparison_hash,
        settings=_settings_line(group),
        screen=first_screen(group, compared, [verdict(each) for each in compared]),
        tasks=accuracies(group),
        facts=_facts(group),
        parts=[part.within(folder) for part in parts if part],
        caveats=caveats(group),
        setup=setup.within(folder),
        config=_pretty(shared_settings(first.config)),
        methods=[(method.label, _pretty(method.first.config.get("method"))) for method in group.methods],
        commands=list(dict.fromkeys(run.record.command for run in group.runs)),
    )


def _parts(group: Group, compared: Sequence[Difference], alone: bool, whole: bool) -> list[Part]:
    """The parts of a section; where a group is alone, the page has its curves."""
    table = comparison_table(group, compared)
    if not whole:
        return [Part("table", "Comparison with the dense baseline", tables=[table])]
    return [
        Part("table", "Comparison with the dense baseline", pictures=_made(difference_figure(group, compared)),
             tables=[table], folded="Every figure of every method"),
        *([] if alone else [Part("curves", "Learning curves", [CURVES_NOTE], learning_curves(group))]),
        Part("flops", "FLOPs", drawings=[flop_parts(group)], tables=[flops_table(group), parts_table(group)]),
        Part("routing", "Routing", widgets=passages(group), pictures=heat_map_figures(group),
             drawings=[*_made(accuracy_figure(group)), *weight_figures(group), *expert_load_figures(group)]),
        Part("decoding", "Causal routers and decoding", drawings=drift_figures(group),
             tables=[causal_routers_table(group), decoding_table(group)]),
        Part("tasks", "Tasks (lm-eval)", tables=[lm_eval_table(group)], folded="Every metric of every task"),
    ]  # fmt: skip


def _made(drawing: Any) -> list[Any]:
    return [drawing] if drawing else []


def _settings_line(group: Group) -> str:
    return ", ".join([f"Compared {contract_words(group.methods[0].first.contract)}", *_facts(group)])


def _facts(group: Group) -> list[str]:
    """Scale, text and machine."""
    first = group.methods[0].first
    model, data = (group.twin.first if group.twin else first).model, first.config.get("data") or {}
    tokens, seeds = equal_tokens(group), {run.record.run.seed for run in group.runs}
    others = [
        f", {method.label} {own.n_layers} × {own.d_model}"
        for method in group.others
        for own in [method.first.model]
        if (own.n_layers, own.d_model) != (model.n_layers, model.d_model)
    ]
    return [
        f"{scaled(first.flops.budget)} training FLOPs{f', {scaled(tokens)} tokens' if tokens else ''}",
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}",
        f"dense {model.n_layers} layers × {model.d_model} wide, {scaled(model.params_total)} parameters"
        + "".join(others),
        f"{data.get('name', 'unnamed text')}, context {model.context}",
        f"{first.environment.device_name}, {first.training.dtype}",
    ]


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
