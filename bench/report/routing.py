"""Figures of routing: heat maps of processed tokens, router weights, predictor accuracy, expert load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.formats import percent
from bench.records.record import Passage, RoutingDetail
from bench.report.charts import draw_seeds, moving_mean
from bench.report.load import Group, Method
from bench.web.data import data_element, short
from bench.web.figures import (
    DENSE,
    INK,
    MUTED,
    Drawing,
    canvas,
    finish,
    method_colours,
    share_cells,
    slug,
    styled,
    themed,
)
from bench.web.render import render

_TEMPLATES = Path(__file__).parent / "templates"
SHOWN_TOKENS = 256  # of a passage; routing.json has all of them
_TOKENS_PER_LINE = 64
_LABELLED_EXPERTS = 16  # with more experts, no shares are written into the cells


@dataclass(frozen=True)
class Shaded:
    """A method's passage, for the page. depths: the share of routed layers that processed each token."""

    method: str
    colour: str
    seed: int
    passage: Passage
    ranks: str  # what its weights are

    @property
    def tokens(self) -> list[tuple[str, int]]:
        """Each token with its depth in per cent."""
        depths = np.mean(self.passage.processed, axis=0) if self.passage.layers else np.zeros(len(self.passage.tokens))
        texts = [token.replace("\n", "⏎") for token in self.passage.tokens]
        return [(text, round(100 * float(depth))) for text, depth in zip(texts, depths, strict=True)]

    @property
    def processed(self) -> str:
        return percent(float(np.mean(self.passage.processed)))

    @property
    def data(self) -> dict[str, Any]:
        """For passage.js: processed as a string of 0 and 1 for each layer."""
        own = self.passage
        return {
            "method": self.method,
            "layers": own.layers,
            "processed": ["".join(map(str, map(int, row))) for row in own.processed],
            "weights": [short(row, 3) for row in own.weights] if own.weights else None,
            "ranks": self.ranks,
            "nats": short(own.nats, 3) if own.nats else None,
        }


def passages(group: Group) -> list[Markup]:
    """The passage of each depth-routed method's first seed, in one widget; none without one."""
    colours = method_colours([method.label for method in group.methods])
    shaded = [
        Shaded(method.label, themed(colours[method.label]), seed, detail.passage, _ranked_by(method))
        for method, seed, detail in _details(group)
        if detail.passage and detail.passage.tokens
    ]
    if not shaded:
        return []
    name = f"passage-{group.comparison_hash}"
    data = data_element(name, [each.data for each in shaded])
    return [Markup(render(_TEMPLATES, "passage.html", {"shaded": shaded, "name": name, "data": data}))]


@styled
def heat_map_figures(group: Group) -> list[Drawing]:
    """The same passages as drawings: a line of cells per 64 tokens, a row per layer."""
    colours = method_colours([method.label for method in group.methods])
    return [
        _heat_map_figure(method.label, colours[method.label], seed, detail.passage)
        for method, seed, detail in _details(group)
        if detail.passage and detail.passage.tokens and detail.passage.layers
    ]


@styled
def weight_figures(group: Group) -> list[Drawing]:
    """Histogram of the router weights of selected and of skipped tokens, a figure per method."""
    colours = method_colours([method.label for method in group.methods])
    drawings = []
    for method, seed, detail in _details(group):
        if not detail.weight_edges or not detail.weight_counts:
            continue
        figure, axes = canvas()
        for name, colour, hatch in (("skipped", DENSE, "////"), ("selected", colours[method.label], None)):
            counts = np.array(detail.weight_counts.get(name, []), dtype=float)
            if len(counts):
                style = {"facecolor": colour, "alpha": 0.75} if hatch is None else {"edgecolor": colour, "hatch": hatch}
                axes.stairs(
                    counts, detail.weight_edges, fill=hatch is None, label=f"{name} ({counts.sum():,.0f})", **style
                )
        ranks = _ranked_by(method)
        axes.set_xlabel(ranks)
        axes.set_ylabel("tokens")
        axes.legend()
        title = f"{ranks[0].upper()}{ranks[1:]}s, {method.label}"
        alt = f"Histogram of the {ranks}s of selected and skipped tokens for {method.label}, seed {seed}."
        name = f"router_weights_{slug(method.label)}"
        caption = f"Validation documents; selected by top-k as in training, which sees the whole passage. Seed {seed}."
        drawings.append(finish(figure, name, title, alt, caption))
    return drawings


def _ranked_by(method: Method) -> str:
    """What ranks a method's tokens: the router weight r, or noise."""
    return "noise rank" if method.depth.get("router") == "gaussian" else "router weight"


@styled
def accuracy_figure(group: Group) -> Drawing | None:
    """Agreement of the causal router with top-k over training, compared with the majority answer."""
    colours = method_colours([method.label for method in group.methods])
    figure, axes = canvas()
    drawn = []
    for method in group.methods:
        curves = _step_curves(method, "predictor_accuracy")
        if curves:
            draw_seeds(axes, curves, colours[method.label], method.label)
        running = _step_curves(method, "expert_threshold_accuracy")
        if curves or running:
            drawn.append(method)
        if running:
            label = f"{method.label}, running threshold"
            axes.plot(*running[0], color=colours[method.label], linewidth=1, linestyle=(0, (1.5, 1.5)), label=label)
    if not drawn:
        return None
    for level in sorted({level for method in drawn if (level := _majority(method)) is not None}):
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"majority answer, {percent(level)}")
    axes.set_xlabel("step")
    axes.set_ylabel("agreement with top-k")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.legend()
    return finish(
        figure,
        "predictor_accuracy",
        "Causal router agreement with top-k over training",
        f"Share of tokens on which the causal router agrees with top-k, over steps, for "
        f"{', '.join(method.label for method in drawn)}.",
        "Training batches, moving mean over 2 % of the steps. Dashed: the majority baseline, which always processes "
        "or always skips. Below it the causal router has learned nothing.",
    )


def _step_curves(method: Method, column: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Steps and the smoothed `column` of each seed that logged it."""
    curves = []
    for run in method.runs:
        if run.steps is not None and column in run.steps:
            measured = run.steps.dropna(subset=[column])
            if len(measured):
                curves.append((measured["step"].to_numpy(dtype=float), moving_mean(measured[column]).to_numpy()))
    return curves


@styled
def expert_load_figures(group: Group) -> list[Drawing]:
    """Share of choices per expert, a row per layer; null experts come last."""
    colours = method_colours([method.label for method in group.methods])
    return [
        _expert_load_figure(method.label, colours[method.label], seed, detail)
        for method, seed, detail in _details(group)
        if detail.expert_load
    ]


def _details(group: Group) -> list[tuple[Method, int, RoutingDetail]]:
    """The routing of each method's first seed that has one."""
    found = []
    for method in group.methods:
        run = next((run for run in method.runs if run.routing), None)
        if run and run.routing:
            found.append((method, run.record.run.seed, run.routing))
    return found


def _heat_map_figure(method: str, colour: str, seed: int, passage: Passage) -> Drawing:
    shown = min(SHOWN_TOKENS, len(passage.tokens))
    starts = range(0, shown, _TOKENS_PER_LINE)
    layers = len(passage.layers)
    longest = max(len(_plain(token)) for token in passage.tokens[:shown])
    figure = Figure(figsize=(8.6, 0.3 + len(starts) * (0.28 + 0.06 * longest + 0.15 * layers)))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    processed = np.array(passage.processed)
    for axes, start in zip(grid, starts, strict=True):
        stop = min(start + _TOKENS_PER_LINE, shown)
        _draw_cells(axes, processed[:, start:stop], colour)
        labels = [_plain(token) for token in passage.tokens[start:stop]]
        positions = np.arange(stop - start) + 0.5
        upright = 90 if longest > 1 else 0
        axes.set_xticks(positions, labels, rotation=upright, fontfamily="monospace", fontsize=7, color=INK)
        axes.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in passage.layers], fontsize=7)
        axes.set_xlim(0, _TOKENS_PER_LINE)
        axes.xaxis.tick_top()
    grid[len(grid) // 2].set_ylabel("layer")
    share = percent(float(processed.mean()))
    return finish(
        figure,
        f"heat_map_{slug(method)}",
        f"Processed tokens by layer, {method}",
        f"Routed layers by position over a validation passage for {method}, seed {seed}: {share} of tokens processed.",
        f"First {shown} of {len(passage.tokens)} tokens; filled cells were processed by that layer (causal router).",
    )


def _draw_cells(axes: Axes, processed: np.ndarray, colour: str) -> None:
    """A pale bar per layer, top row first, with a filled cell where `processed` is true."""
    layers, width = processed.shape
    for layer in range(layers):
        axes.broken_barh([(0, width)], (layer + 0.05, 0.9), facecolor=DENSE, alpha=0.18, linewidth=0)
        cells = [(float(position) + 0.05, 0.9) for position in np.flatnonzero(processed[layer])]
        axes.broken_barh(cells, (layer + 0.05, 0.9), facecolor=colour, linewidth=0)
    axes.set_ylim(layers, 0)
    axes.grid(visible=False)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)


def _expert_load_figure(method: str, colour: str, seed: int, detail: RoutingDetail) -> Drawing:
    assert detail.expert_load is not None
    layers = sorted(detail.expert_load, key=lambda layer: (len(layer), layer))
    load = np.array([detail.expert_load[layer] for layer in layers])
    experts = load.shape[1] - detail.n_noop
    figure, axes = canvas(height=0.8 + 0.24 * len(layers))
    share_cells(axes, load, colour, fontsize=10.5, labelled=load.shape[1] <= _LABELLED_EXPERTS)
    if detail.n_noop:
        axes.axvline(experts, color=MUTED, linewidth=2)
    names = [str(expert + 1) for expert in range(experts)] + [f"n{n + 1}" for n in range(detail.n_noop)]
    every = max(1, len(names) // 20)
    axes.set_xticks((np.arange(len(names)) + 0.5)[::every], names[::every])
    axes.set_yticks(np.arange(len(layers)) + 0.5, layers)
    axes.set_xlabel("expert (n: null expert)" if detail.n_noop else "expert")
    axes.set_ylabel("layer")
    return finish(
        figure,
        f"expert_load_{slug(method)}",
        f"Expert load, {method}",
        f"Share of choices by expert and layer for {method}, seed {seed}: from {percent(float(load.min()))} to "
        f"{percent(float(load.max()))}.",
        f"Percent of a layer’s choices on validation documents, seed {seed}. Balanced: {percent(1 / load.shape[1])}.",
    )


def _majority(method: Method) -> float | None:
    capacity = method.depth.get("capacity")
    return max(capacity, 1 - capacity) if isinstance(capacity, (int, float)) else None


def _plain(token: str) -> str:
    """A token as a tick label, without blanks, which would only shift the centred text."""
    return token.replace("\n", "⏎").strip()
