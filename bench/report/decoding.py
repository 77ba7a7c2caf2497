"""Decoding: causal routers compared, and speed against dense, realised and ideal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import pandas as pd

from bench.config.identity import MethodId
from bench.formats import DASH, NBSP, binary, count, decimal, duration, percent, signed, times
from bench.records.record import CausalRouterStatistics, DecodePoint
from bench.records.targets import Targets
from bench.report.load import Group, Method
from bench.stats.interval import Interval
from bench.web.figures import DENSE, MUTED, Drawing, canvas, error_bars, finish, method_colours, slug, styled
from bench.web.tables import Table

_ROUTER_COLOURS = {"predictor": "#d55e00", "bce": "#0072b2", "threshold": "#009e73", "expert_threshold": "#cc79a7"}
_STYLES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))


def causal_routers_table(group: Group) -> Table:
    """A row per method and causal router: means over comparable seeds."""
    rows, data = [], []
    for method in group.methods:
        for name, seeds in _routers(method).items():
            figures = {
                "accuracy": fmean(seed.accuracy for seed in seeds),
                "fraction_processed": fmean(seed.fraction_processed for seed in seeds),
                "val_loss_nats": fmean(seed.val_loss_nats for seed in seeds),
                "loss_over_topk": fmean(seed.loss_over_topk for seed in seeds),
            }
            rows.append(
                [
                    f"{method.label}, {name.replace('_', ' ')}",
                    percent(figures["accuracy"]),
                    percent(figures["fraction_processed"]),
                    decimal(figures["val_loss_nats"]),
                    signed(100 * figures["loss_over_topk"], 2),
                ]
            )
            data.append({"method": method.label, "router": name, "seeds": len(seeds)} | figures)
    caption = (
        "Each causal router in place of top-k, on the same validation documents. The first of each method is the one "
        "behind all its quality figures. Means over comparable seeds. Predictor: an MLP trained on top-k membership. "
        "BCE: the router’s own score, trained with a binary cross-entropy. Threshold: a value calibrated once on other "
        "text. Expert threshold: the running mean of the lowest score that top-k selected in training."
    )
    if any(row["router"] == "noise_threshold" for row in data):
        caption += " Noise threshold: a quantile of the noise by which a method without a learned router ranks tokens."
    columns = [
        "router", "agreement with top-k", "tokens processed", "validation loss, nats/token", "loss minus top-k’s, %",
    ]  # fmt: skip
    return Table("causal_routers", caption, columns, rows, pd.DataFrame(data))


def decoding_table(group: Group) -> Table:
    """A row per method and point: medians over seeds."""
    rows, data = [], []
    for method in group.methods:
        points: dict[tuple[int, int], list[DecodePoint]] = {}
        for run in method.runs:
            for point in (run.record.speed.decode if run.record.speed else None) or []:
                points.setdefault((point.batch_size, point.context), []).append(point)
        for (batch_size, context), seeds in points.items():
            where = f"{method.label}, {batch_size} {'row' if batch_size == 1 else 'rows'}, context {context}"
            rows.append([where, *decode_cells(seeds)])
            data += [{"method": method.label} | seed.model_dump(exclude_none=True) for seed in seeds]
    caption = (
        "Decoding with a KV cache, one token per step; steps of the method and the dense baseline alternate. Ideal: by "
        "the roofline, where a step takes the longer of its memory reads and its arithmetic. Small models are far from "
        "it, because most of a step is overhead. Medians over seeds."
    )
    return Table("decoding", caption, ["", *DECODE_COLUMNS], rows, pd.json_normalize(data))


DECODE_COLUMNS = [
    "tokens/s", "step, median", "step, 95th percentile", "time to first token", "speed-up over dense",
    "ideal speed-up", "tokens processed", "KV cache", "KV cache over dense", "share of roofline", "form",
]  # fmt: skip


def decode_cells(seeds: Sequence[DecodePoint]) -> list[str]:
    """The cells of one point, for DECODE_COLUMNS."""

    def middle(values: Sequence[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return median(there) if there else None

    return [
        count(middle([seed.tokens_per_second for seed in seeds])),
        duration(middle([seed.step_seconds.median for seed in seeds])),
        duration(middle([seed.step_seconds_p95 for seed in seeds])),
        duration(middle([seed.first_token_seconds for seed in seeds])),
        times(middle([seed.speedup_realised.median if seed.speedup_realised else None for seed in seeds])),
        times(middle([seed.speedup_ideal for seed in seeds])),
        percent(middle([seed.fraction_processed for seed in seeds])),
        binary(middle([seed.kv_cache_bytes for seed in seeds])),
        times(middle([seed.kv_cache_ratio for seed in seeds])),
        percent(middle([seed.roofline_share for seed in seeds]), 0),
        next((seed.form for seed in seeds if seed.fraction_processed is not None), DASH),
    ]


@styled
def drift_figures(group: Group) -> list[Drawing]:
    """Fraction of tokens that each causal router processes, by position; a figure per method."""
    drawings = []
    for method in group.methods:
        routers = _routers(method)
        if not routers:
            continue
        figure, axes = canvas()
        for style, (name, seeds) in zip(_STYLES, routers.items(), strict=False):
            parts = min(len(seed.fraction_by_position) for seed in seeds)
            shares = [fmean(seed.fraction_by_position[part] for seed in seeds) for part in range(parts)]
            middles = [(part + 0.5) / parts for part in range(parts)]
            axes.plot(
                middles, shares, label=name.replace("_", " "), color=_ROUTER_COLOURS.get(name, MUTED), linestyle=style,
                marker="o", markersize=3,
            )  # fmt: skip
        capacity = method.depth.get("capacity")
        if capacity is not None:
            axes.axhline(capacity, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("position, fraction of the context")
        axes.set_ylabel("tokens processed")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.legend()
        drawings.append(
            finish(
                figure,
                f"drift_{slug(method.label)}",
                f"Fraction routed by position, {method.label}",
                f"Fraction of tokens processed by each causal router of {method.label}, by position in the context.",
                "Validation documents, mean over routed blocks and comparable seeds. Dashed: the capacity.",
            )
        )
    return drawings


def decode_table(study: Targets) -> Table:
    """Every point of every method of a decode study."""
    points = [(MethodId.parse(name).title, point) for name, own in (study.decode or {}).items() for point in own]
    points.sort(key=lambda each: (each[1].batch_size, each[1].context))
    baseline = {(each.batch_size, each.context): each for _, each in points if each.kv_cache_ratio is None}
    rows, data = [], []
    for method, point in points:
        dense = baseline.get((point.batch_size, point.context))
        held = None
        if dense is not None and point is not dense:
            held = point.kv_cache_held_bytes / dense.kv_cache_held_bytes
        rows.append([f"{method}, {point.batch_size}{NBSP}×{NBSP}{point.context}", *decode_cells([point]), times(held)])
        data.append({"method": method} | point.model_dump(exclude_none=True) | {"kv_cache_held_ratio": held})
    caption = (
        "Rows decoded together × context of each, in tokens. Time to first token: reading all the contexts. KV cache: "
        "allocated, including room for growth. Content over dense: only the keys and values in it."
    )
    return Table("decode", caption, ["", *DECODE_COLUMNS, "content over dense"], rows, pd.json_normalize(data))


def decode_finding(study: Targets) -> str | None:
    """The range of the speed-ups over dense, by method; None without any."""
    found = []
    for spelling, points in (study.decode or {}).items():
        speedups = [point.speedup_realised.median for point in points if point.speedup_realised]
        if speedups:
            found.append(f"{MethodId.parse(spelling).title} decodes {decimal(min(speedups), 2)} to "
                         f"{decimal(max(speedups), 2)} times as fast as dense")  # fmt: skip
    return ", ".join(found) or None


@styled
def decode_figures(study: Targets) -> list[Drawing]:
    """For each method: speed-up against the rows decoded together, and against context."""
    drawings = []
    for spelling, points in (study.decode or {}).items():
        method = MethodId.parse(spelling).title
        compared = [point for point in points if point.speedup_realised and point.speedup_ideal]
        for name, along, fixed, label in (
            ("rows", "batch_size", "context", "rows decoded together"),
            ("context", "context", "batch_size", "context, tokens"),
        ):
            lines = _lines(compared, along, fixed)
            if lines:
                drawings.append(_figure(method, name, lines, along, fixed, label))
    return drawings


def _lines(points: list[DecodePoint], along: str, fixed: str) -> dict[int, list[DecodePoint]]:
    """Points that differ only in `along`, where there are at least three."""
    lines: dict[int, list[DecodePoint]] = {}
    for point in sorted(points, key=lambda point: getattr(point, along)):
        lines.setdefault(getattr(point, fixed), []).append(point)
    return {value: line for value, line in sorted(lines.items()) if len(line) > 2}


def _figure(method: str, name: str, lines: dict[int, list[DecodePoint]], along: str, fixed: str, label: str) -> Drawing:
    figure, axes = canvas(height=3.2)
    colours = list(method_colours([f"{method} {value}" for value in lines]).values())
    for colour, (value, line) in zip(colours, lines.items(), strict=True):
        x = [getattr(point, along) for point in line]
        realised = [
            Interval(timing.median, timing.low, timing.high) for point in line if (timing := point.speedup_realised)
        ]
        what = f"context {value}" if fixed == "context" else f"{value} {'row' if value == 1 else 'rows'}"
        error_bars(axes, x, realised, colour, linestyle="-", label=what)
        axes.plot(x, [point.speedup_ideal or 0.0 for point in line], color=colour, linestyle=(0, (4, 3)), linewidth=1)
    axes.axhline(1, color=DENSE, linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = sorted({getattr(point, along) for line in lines.values() for point in line})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("speed-up over dense")
    axes.legend()
    return finish(
        figure,
        f"decode_{name}_{slug(method)}",
        f"Decode speed-up against {name}, {method}",
        f"Decode speed-up of {method} over dense against {label}, realised and by the roofline.",
        "Solid: realised, with the 95 % CI of the median over groups of steps. Dashed: ideal, by the roofline.",
    )


def _routers(method: Method) -> dict[str, list[CausalRouterStatistics]]:
    found: dict[str, list[CausalRouterStatistics]] = {}
    for run in method.comparable:
        routing = run.record.routing
        for name, statistics in ((routing.causal_routers if routing else None) or {}).items():
            found.setdefault(name, []).append(statistics)
    return found
