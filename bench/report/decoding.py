"""What a trained model does when it decodes: its causal routers side by side, and its speed beside dense."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import pandas as pd

from bench.formats import DASH, count, decimal, duration, mebibytes, percent, signed, times
from bench.records.record import CausalRouterStatistics, DecodePoint
from bench.report.figures import MUTED, Drawing, canvas, finish, slug, styled
from bench.report.load import Group, Method, RunFiles
from bench.report.tables import Table

_ROUTER_COLOURS = {"predictor": "#d55e00", "bce": "#0072b2", "threshold": "#009e73", "expert_threshold": "#cc79a7"}
_STYLES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))


def causal_routers_table(group: Group) -> Table:
    """A row for each method and causal router: means over comparable seeds."""
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
                    f"{signed(100 * figures['loss_over_topk'], 2)} %",
                ]
            )
            data.append({"method": method.label, "router": name, "seeds": len(seeds)} | figures)
    caption = (
        "Each causal router of the trained models, in place of top-k on the same held-out text; the first of a method "
        "is the one that all its quality figures use. Means over comparable seeds. predictor: an MLP that learnt top-k "
        "membership; bce: the router’s own score, pushed apart by a loss; threshold: a value set once on other "
        "held-out text; expert threshold: the running mean of the lowest score that top-k took in training."
    )
    if any(row["router"] == "noise_threshold" for row in data):
        caption += " Noise threshold: the quantile of the noise that a method without a learned router ranks by."
    columns = ["router", "agrees with top-k", "tokens processed", "loss, nats", "loss over top-k’s"]
    return Table("causal_routers", caption, columns, rows, pd.DataFrame(data))


def decoding_table(group: Group) -> Table:
    """A row for each method and point: medians over seeds."""
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
        "Decoding with a KV cache, one token a step, method and dense twin in turn. Ideal: the same by the roofline, "
        "where each step either reads its weights, keys and values or computes, whichever takes longer. Small models "
        "are far from it: most of a step is neither. Medians over seeds."
    )
    return Table("decoding", caption, ["", *DECODE_COLUMNS], rows, pd.json_normalize(data))


DECODE_COLUMNS = [
    "tokens/s", "step, median", "step, 95 %", "first token", "over dense", "ideal", "tokens processed", "KV cache",
    "KV cache over dense", "share of roofline", "form",
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
        mebibytes(middle([seed.kv_cache_bytes for seed in seeds])),
        times(middle([seed.kv_cache_ratio for seed in seeds])),
        percent(middle([seed.roofline_share for seed in seeds]), 0),
        next((seed.form for seed in seeds if seed.fraction_processed is not None), DASH),
    ]


@styled
def drift_figures(group: Group) -> list[Drawing]:
    """Share of tokens that each causal router processes along the context, a figure a method."""
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
        capacity = _capacity(method)
        if capacity is not None:
            axes.axhline(capacity, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("position, share of the context")
        axes.set_ylabel("tokens processed")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.legend()
        drawings.append(
            finish(
                figure,
                f"drift_{slug(method.label)}",
                f"Tokens processed along the context, {method.label}",
                f"Share of tokens processed by each causal router of {method.label}, by position in the context.",
                "Held-out text, mean over routed blocks and comparable seeds. Dashed: the capacity. A causal text of "
                "half the length is the left half of the figure.",
            )
        )
    return drawings


def _routers(method: Method) -> dict[str, list[CausalRouterStatistics]]:
    found: dict[str, list[CausalRouterStatistics]] = {}
    for run in method.comparable:
        for name, statistics in _of(run).items():
            found.setdefault(name, []).append(statistics)
    return found


def _of(run: RunFiles) -> dict[str, CausalRouterStatistics]:
    return (run.record.routing.causal_routers if run.record.routing else None) or {}


def _capacity(method: Method) -> float | None:
    depth = (method.first.config.get("method") or {}).get("depth") or {}
    return depth.get("capacity")
