"""Figures of the whole comparison: difference from dense, learning curves, FLOPs by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.formats import scaled, signed
from bench.report.differences import Difference
from bench.report.load import Group, Method, contract_words
from bench.stats.verdict import SMALLEST_EFFECT
from bench.web.figures import (
    DENSE,
    INK,
    SURFACE,
    Drawing,
    canvas,
    error_bars,
    finish,
    method_colours,
    styled,
    wrapped,
)

SMOOTHING = 0.02  # the moving mean covers this share of a run's steps
_SHOWN = 0.2  # the frame fits the curves after this share of training: before it the loss falls steeply
_POINTS = 160  # of a curve in a figure; steps.csv has all of them
CURVES_NOTE = (
    f"Moving mean over {100 * SMOOTHING:.0f} % of the steps of a run. Thin lines: seeds; thick lines: their mean. "
    f"The first {100 * _SHOWN:.0f} % of training may lie above the frame. Depth-routed methods train with top-k, "
    "so this is not their causal loss."
)

AXES = (
    ("train_flops", "FLOPs", "training FLOPs"),
    ("tokens", "tokens", "training tokens"),
    ("seconds", "seconds", "training time, s"),
)
# Paul Tol's muted scheme for parts of the model: paler than the colours of methods.
_PART_COLOURS = ("#88ccee", "#44aa99", "#ddcc77", "#cc6677", "#332288", "#aa4499", "#117733", "#999933", "#882255")


@styled
def difference_figure(group: Group, differences: Sequence[Difference]) -> Drawing | None:
    """Loss minus dense for each method with its interval, the detectable effect and the smallest one of interest."""
    compared = [difference for difference in differences if difference.loss]
    if not compared:
        return None
    colours = method_colours([method.label for method in group.methods])
    figure, axes = canvas(height=0.8 + 0.36 * len(compared))
    for row, difference in enumerate(compared):
        assert difference.loss is not None
        if (effect := difference.loss.minimum_detectable) is not None:
            axes.barh(row, 2 * effect, left=-effect, height=0.5, color=DENSE, alpha=0.18)
        error_bars(axes, [row], [difference.loss], colours[difference.label], horizontal=True, markersize=6)
    axes.axvline(0, color=INK, linewidth=1)
    if compared[0].dense_loss is not None:
        for side in (-SMALLEST_EFFECT, SMALLEST_EFFECT):
            axes.axvline(side * compared[0].dense_loss, color=INK, linewidth=0.8, linestyle=":")
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(compared)), [wrapped(difference.label) for difference in compared], color=INK)
    axes.set_ylim(len(compared) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("loss minus dense, nats/token (left is better)")
    values = "; ".join(f"{each.label} {signed(each.loss.value)}" for each in compared if each.loss)
    return finish(
        figure,
        "difference",
        "Validation loss against dense",
        f"Validation loss minus dense, in nats/token, {contract_words(compared[0].contract)}: {values}.",
        "Dots: differences with their 95 % CI over seeds. Pale bars: below the minimum detectable effect (80 % power). "
        f"Dotted lines: the smallest effect of interest, {100 * SMALLEST_EFFECT:.0f} % of dense’s loss.",
    )


@styled
def learning_curves(group: Group) -> list[Drawing]:
    """Smoothed training loss against FLOPs, tokens and seconds; a thin line per seed, a thick one for their mean."""
    methods = [method for method in group.methods if any(run.steps is not None for run in method.runs)]
    if not methods:
        return []
    return [_curves(methods, group, column, unit, label) for column, unit, label in AXES]


@styled
def flop_parts(group: Group) -> Drawing:
    """Forward FLOPs/token of each method, stacked by part of the model."""
    labels = [method.label for method in group.methods]
    parts = list(dict.fromkeys(part for method in group.methods for part in method.first.flops.parts))
    figure, axes = canvas(height=1.0 + 0.34 * len(labels) + 0.18 * ((len(parts) + 1) // 2))
    left = np.zeros(len(labels))
    for number, part in enumerate(parts):
        widths = np.array([method.first.flops.parts.get(part, 0.0) for method in group.methods])
        colour = _PART_COLOURS[number % len(_PART_COLOURS)]
        axes.barh(
            range(len(labels)),
            widths,
            left=left,
            height=0.62,
            color=colour,
            edgecolor=SURFACE,
            linewidth=0.8,
            label=part,
        )
        left += widths
    for row, total in enumerate(left):
        axes.text(total, row, f" {scaled(total)}", va="center", color=INK)
    axes.set_xlim(0, 1.2 * float(left.max()))
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(labels)), [wrapped(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
    axes.set_xlabel("forward FLOPs/token")
    figure.legend(loc="outside lower center", ncols=2)
    totals = "; ".join(f"{label} {scaled(total)}" for label, total in zip(labels, left, strict=True))
    return finish(
        figure,
        "flop_parts",
        "FLOPs by part",
        f"Forward FLOPs/token by part of the model. Totals: {totals}.",
        "Planned and analytic, at the training context length. A multiply-add is 2 FLOPs.",
    )


def moving_mean(values: pd.Series) -> pd.Series:
    """The mean over a step and those before it, `SMOOTHING` of the run's steps together (fewer at its start)."""
    window = max(1, round(SMOOTHING * len(values)))
    return values.rolling(window, min_periods=1).mean()


def draw_seeds(axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], colour: str, label: str) -> None:
    """A thin line for each seed's (x, y) and, if there are several, a thick one for their mean.

    The mean ends where the shortest curve does.
    """
    if len(curves) == 1:
        axes.plot(*_thinned(*curves[0]), color=colour, linewidth=1.5, label=label)
        return
    for x, y in curves:
        axes.plot(*_thinned(x, y), color=colour, linewidth=0.6, alpha=0.45)
    grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), _POINTS)
    mean = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
    axes.plot(grid, mean, color=colour, linewidth=1.6, label=label)


def _curves(methods: Sequence[Method], group: Group, column: str, unit: str, label: str) -> Drawing:
    colours = method_colours([method.label for method in group.methods])
    figure, axes = canvas()
    shown: list[np.ndarray] = []
    for method in methods:
        curves = []
        for run in method.runs:
            if run.steps is not None and len(run.steps):
                x, y = run.steps[column].to_numpy(dtype=float), moving_mean(run.steps["loss"]).to_numpy()
                curves.append((x, y))
                shown.append(y[int(_SHOWN * len(y)) :])
        if curves:
            draw_seeds(axes, curves, colours[method.label], method.label)
    visible = np.concatenate(shown) if shown else np.array([])
    visible = visible[np.isfinite(visible)]
    if len(visible):
        low, high = float(visible.min()), float(visible.max())
        margin = 0.04 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: scaled(value))
    axes.set_ylabel("training loss, nats/token")
    axes.legend()
    labels = ", ".join(method.label for method in methods)
    return finish(
        figure,
        f"learning_curve_{column}",
        f"Training loss against {unit}",
        f"Smoothed training loss in nats/token against {label}, for {labels}.",
        "",
    )


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int))
    return x[keep], y[keep]
