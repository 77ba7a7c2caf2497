"""Figures and tables of what routers do with each token."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch

from bench.formats import DASH, count, percent, signed, with_interval
from bench.isoflop.pages.section import Part, there
from bench.records.isoflop import Covariate, DepthUse, ExpertUse, Profile, TokenStudy
from bench.report.figures import INK, Drawing, canvas, error_bars, finish, method_colours, slug, styled
from bench.report.tables import Table
from bench.stats.interval import Interval

_INTERVALS = "95 %, over documents (jackknife and t)"


def tokens_part(study: TokenStudy | None) -> Part:
    """Difficulty, kinds of token, and when routing settles; empty where no router was studied."""
    title = "Difficulty, or just position?"
    if study is None:
        return Part("tokens", title, [])
    notes = [
        "What the routers of the best shapes at the largest budget do with each held-out token, against what the dense "
        "model finds hard: of one model and seed each. Being processed more does not show that it helps.",
        *(note for method, use in study.depth.items() if (note := _followed(method, use))),
    ]
    drawings = there(*profile_figures(study), *expert_figures(study), settling_figure(study))
    return Part("tokens", title, notes, drawings, [correlation_table(study)])


def _followed(method: str, use: DepthUse) -> str:
    """What the decisions of all routed layers go with, the strongest first; or empty."""
    alone, at_equal = (
        sorted(
            (each for each in use.correlations if each.layer == "all" and (each.given == "none") == as_it_is),
            key=lambda each: -abs(each.rho),
        )
        for as_it_is in (True, False)
    )
    if not alone:
        return ""
    told = f"{method}, all routed layers, rank correlations from the strongest on: {_listed(alone)}."
    return f"{told} At equal {at_equal[0].given}: {_listed(at_equal)}." if at_equal else told


def _listed(correlations: list[Covariate]) -> str:
    return ", ".join(
        f"{each.covariate} {with_interval(each.rho, each.low, each.high, signed)}" for each in correlations
    )


def correlation_table(study: TokenStudy) -> Table:
    """Spearman's rho of being processed with each property, layer by layer, with intervals and adjusted p."""
    rows, data = [], []
    for method, use in study.depth.items():
        for each in use.correlations:
            where = "all routed layers" if each.layer == "all" else f"layer {each.layer}"
            rows.append(
                [
                    f"{method}, {where}", each.covariate, each.given, signed(each.rho),
                    _interval(each), _p(each.p),
                ]
            )  # fmt: skip
            data.append({"method": method} | each.model_dump())
    caption = (
        f"Spearman’s rank correlation of being processed with a property of the token, over {study.tokens:,} held-out "
        f"tokens of {study.documents} documents. Losses and entropies are those of dense ({study.twin}). Intervals: "
        f"{_INTERVALS}; p is adjusted for the number of tests of the method (Holm)."
    )
    columns = ["", "property", "taken out first", "rho", "95 % interval", "p"]
    return Table("token_correlations", caption, columns, rows, pd.DataFrame(data))


def _interval(each: Covariate) -> str:
    return DASH if each.low is None else f"{signed(each.low)} to {signed(each.high)}"


def _p(value: float | None) -> str:
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


@styled
def profile_figures(study: TokenStudy) -> list[Drawing]:
    """Share of routed layers that process a token, over each property, a line a method; and by kind of token."""
    if not study.depth:
        return []
    colours = method_colours(list(study.depth))
    found = []
    for name in next(iter(study.depth.values())).profiles:
        figure, axes = canvas()
        for method, use in study.depth.items():
            parts = use.profiles[name]
            x = [float(part.at or 0.0) for part in parts]
            ends = np.array([(np.nan, np.nan) if p.low is None else (p.low, p.high) for p in parts], dtype=float)
            axes.fill_between(x, *ends.T, color=colours[method], alpha=0.2)
            axes.plot(x, [p.share for p in parts], color=colours[method], marker="o", markersize=3, label=method)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
        axes.set_xlabel({"frequency": "log of the token’s count in training text"}.get(name, name))
        axes.set_ylabel("routed layers that process it")
        axes.legend()
        found.append(
            finish(
                figure, f"depth_by_{slug(name)}", f"Depth by {name}",
                f"Mean share of routed layers that process a token, against {name}.",
                "A point: a tenth of the held-out tokens, more or fewer where many share a value. Band: "
                f"{_INTERVALS}.",
            )
        )  # fmt: skip
    return [*found, _by_kind(study, colours)]


def _by_kind(study: TokenStudy, colours: dict[str, str]) -> Drawing:
    kinds = [kind for kind in study.kinds if any(kind in use.by_kind for use in study.depth.values())]
    figure, axes = canvas(height=0.9 + 0.34 * len(kinds))
    height = 0.8 / len(study.depth)
    for place, (method, use) in enumerate(study.depth.items()):
        for row, kind in enumerate(kinds):
            part: Profile | None = use.by_kind.get(kind)
            if part is not None:
                y = row + (place - (len(study.depth) - 1) / 2) * height
                axes.barh(y, part.share, height=0.9 * height, color=colours[method], alpha=0.8)
                own = Interval(part.share, part.low, part.high)
                error_bars(axes, [y], [own], INK, horizontal=True, marker="none", elinewidth=1)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("routed layers that process it")
    axes.legend(handles=[Patch(color=colours[method], alpha=0.8, label=method) for method in study.depth])
    return finish(
        figure, "depth_by_kind", "Depth by kind of token",
        "Mean share of routed layers that process a token, by its kind.",
        f"Kind of the token that is read. Lines: {_INTERVALS}.",
    )  # fmt: skip


@styled
def expert_figures(study: TokenStudy) -> list[Drawing]:
    """For each method with experts: the kinds of token its experts take, and the experts chosen together."""
    colours = method_colours(list(study.experts))
    found = []
    for method, layers in study.experts.items():
        most = max(layers, key=lambda each: each.information)
        found.append(_kinds_figure(method, most, len(layers), study.kinds, colours[method]))
        found.append(_together_figure(method, most, colours[method]))
    return found


def _kinds_figure(method: str, use: ExpertUse, n_layers: int, kinds: list[str], colour: str) -> Drawing:
    share = np.array(use.share_by_kind)
    there = [number for number in range(len(kinds)) if share[number].sum() > 0]
    figure, axes = canvas(height=1.0 + 0.26 * len(there))
    _cells(axes, share[there], colour)
    axes.set_yticks(np.arange(len(there)) + 0.5, [kinds[number] for number in there])
    axes.set_xlabel("expert")
    return finish(
        figure, f"experts_by_kind_{slug(method)}", f"Experts by kind of token, {method}, layer {use.layer}",
        f"Share of each kind of token's choices that each expert of {method} gets, layer {use.layer}.",
        f"Percent of a kind’s choices. Of {count(n_layers)} layers with experts the one whose experts tell most about "
        f"the kind: {_information(use)} of its entropy; the interval does not know of that choice.",
    )  # fmt: skip


def _information(use: ExpertUse) -> str:
    return with_interval(use.information, use.information_low, use.information_high, percent)


def _together_figure(method: str, use: ExpertUse, colour: str) -> Drawing:
    figure, axes = canvas(height=3.2)
    _cells(axes, np.array(use.together), colour)
    axes.set_yticks(np.arange(len(use.together)) + 0.5, [str(n + 1) for n in range(len(use.together))])
    axes.set_xlabel("chosen with it")
    axes.set_ylabel("expert")
    return finish(
        figure, f"experts_together_{slug(method)}", f"Experts chosen together, {method}, layer {use.layer}",
        f"Share of each expert's tokens that chose another one too, {method}, layer {use.layer}.",
        "Percent of what a row’s tokens chose beside it; of independent choices, columns would be even.",
    )  # fmt: skip


def _cells(axes, values: np.ndarray, colour: str) -> None:
    palette = LinearSegmentedColormap.from_list("share", ["#ffffff", colour])
    axes.pcolormesh(values, cmap=palette, vmin=0, vmax=float(values.max()) or 1.0, edgecolors="#ffffff", linewidth=1)
    for (row, column), share in np.ndenumerate(values):
        axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color="#101418", fontsize=7)
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, [str(n + 1) for n in range(values.shape[1])])
    axes.set_ylim(len(values), 0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@styled
def settling_figure(study: TokenStudy) -> Drawing | None:
    """Agreement of routing decisions with the final ones, over training."""
    if not study.settling:
        return None
    colours = method_colours(list(study.settling))
    figure, axes = canvas()
    for method, points in study.settling.items():
        for name, style in (("depth", "-"), ("experts", "--")):
            own = pd.DataFrame([point.model_dump() for point in points], dtype=float).dropna(subset=name)
            if len(own):
                axes.fill_between(
                    own["share"], own[f"{name}_low"], own[f"{name}_high"], color=colours[method], alpha=0.2
                )
                label = f"{method}, {name}"
                axes.plot(own["share"], own[name], style, marker="o", markersize=3, color=colours[method], label=label)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("share of the training budget")
    axes.set_ylabel("decisions as at the end")
    axes.legend()
    return finish(
        figure, "settling", "When routing settles",
        "Share of the final routing decisions that were made already, over training.",
        "Depth: of the tokens finally processed. Experts: of the experts finally chosen. Held-out text. Bands, where "
        "measured: 95 % over documents.",
    )  # fmt: skip
