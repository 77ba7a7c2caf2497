"""A comparison as an HTML page and its Markdown twin, from the templates beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bench.formats import scaled
from bench.report.caveats import caveats
from bench.report.charts import CURVES_NOTE, difference_figure, flop_parts, learning_curves
from bench.report.decoding import causal_routers_table, decoding_table, drift_figures
from bench.report.differences import differences, verdict
from bench.report.figures import Drawing, method_colours
from bench.report.load import Comparison, Group, contract_words, shared_settings
from bench.report.render import render
from bench.report.routing import (
    HeatMap,
    accuracy_figure,
    expert_load_figures,
    heat_map_figures,
    heat_maps,
    weight_figures,
)
from bench.report.tables import (
    Table,
    comparison_table,
    flops_table,
    method_settings_table,
    parts_table,
    runs_table,
    versions_table,
)
from bench.report.tasks import lm_eval_table


@dataclass(frozen=True)
class Section:
    """Everything the templates show of one group of runs."""

    id: str
    folder: str  # of its figures and tables: the comparison hash and a slash, empty where there is one group only
    settings: str
    verdicts: list[tuple[str, str, str]]  # method, the rest of its sentence, its colour
    comparison: Table
    runs: Table
    difference: Drawing | None
    curves: list[Drawing]
    curves_note: str
    parts_figure: Drawing
    parts: Table
    flops: Table
    heat_maps: list[HeatMap]
    heat_map_figures: list[Drawing]
    weights: list[Drawing]
    accuracy: Drawing | None
    loads: list[Drawing]
    causal_routers: Table
    drift: list[Drawing]
    decoding: Table
    tasks: Table
    caveats: list[str]
    method_settings: Table
    versions: Table
    config: str
    methods: list[tuple[str, str]]
    commands: list[str]

    @property
    def drawings(self) -> list[Drawing]:
        """Every figure, to be written as files."""
        alone = [self.difference, self.parts_figure, self.accuracy]
        return (
            [each for each in alone if each]
            + self.curves
            + self.heat_map_figures
            + self.weights
            + self.loads
            + self.drift
        )

    @property
    def tables(self) -> list[Table]:
        """Every table, to be written as CSV."""
        measured = [self.comparison, self.runs, self.parts, self.flops, self.causal_routers, self.decoding, self.tasks]
        shown = [*measured, self.method_settings, self.versions]
        return [table for table in shown if table.rows]


def sections(comparison: Comparison) -> list[Section]:
    """One section for each group of runs that may stand in one table."""
    alone = len(comparison.groups) == 1
    return [_section(group, "" if alone else f"{group.comparison_hash}/") for group in comparison.groups]


def render_html(comparison: Comparison, shown: list[Section]) -> str:
    """The page: style, figures and data inside it, nothing fetched from elsewhere."""
    return _render("index.html", comparison, shown)


def render_markdown(comparison: Comparison, shown: list[Section]) -> str:
    """The same in Markdown, with figures from the files beside it."""
    return _render("report.md", comparison, shown)


def _render(template: str, comparison: Comparison, shown: list[Section], **more: Any) -> str:
    created = max(run.record.run.created for group in comparison.groups for run in group.runs)
    return render(template, name=comparison.name, problems=comparison.problems, sections=shown, created=created, **more)


def _section(group: Group, folder: str) -> Section:
    first = group.methods[0].first
    colours = method_colours([method.label for method in group.methods])
    return Section(
        id=group.comparison_hash,
        folder=folder,
        settings=_settings_line(group),
        verdicts=[
            (each.label, verdict(each).removeprefix(each.label), colours[each.label]) for each in differences(group)
        ],
        comparison=comparison_table(group),
        runs=runs_table(group),
        difference=difference_figure(group),
        curves=learning_curves(group),
        curves_note=CURVES_NOTE,
        parts_figure=flop_parts(group),
        parts=parts_table(group),
        flops=flops_table(group),
        heat_maps=heat_maps(group),
        heat_map_figures=heat_map_figures(group),
        weights=weight_figures(group),
        accuracy=accuracy_figure(group),
        loads=expert_load_figures(group),
        causal_routers=causal_routers_table(group),
        drift=drift_figures(group),
        decoding=decoding_table(group),
        tasks=lm_eval_table(group),
        caveats=caveats(group),
        method_settings=method_settings_table(group),
        versions=versions_table(group),
        config=_pretty(shared_settings(first.config)),
        methods=[(method.label, _pretty(method.first.config.get("method"))) for method in group.methods],
        commands=[run.record.command for run in group.runs],
    )


def _settings_line(group: Group) -> str:
    first = group.methods[0].first
    model, data = (group.twin.first if group.twin else first).model, first.config.get("data") or {}
    return (
        f"Compared {contract_words(first.contract)}: {scaled(first.flops.budget)} training FLOPs, "
        f"data {data.get('name', 'unnamed')}, context {model.context}, dense {model.n_layers} layers × {model.d_model} "
        f"wide, {scaled(model.params_total)} parameters, on {first.environment.device_name}, {first.training.dtype}"
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
