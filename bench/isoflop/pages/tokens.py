"""What routers do with each token: depth by property, experts by kind, and when routing settles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from bench.formats import DASH, percent, signed, with_interval
from bench.isoflop.analysis.results import Results, title
from bench.isoflop.pages.section import there
from bench.records.isoflop import ExpertUse, Profile, TokenStudy
from bench.stats.interval import Interval
from bench.web.figures import INK, Drawing, canvas, error_bars, finish, method_colours, share_cells, slug, styled
from bench.web.page import Part
from bench.web.tables import Table


def tokens_part(results: Results) -> Part:
    """Depth and experts by token; empty if no router was studied."""
    study, heading = results.study.tokens, "Which tokens get depth"
    if study is None:
        return Part("tokens", heading)
    names = {name: results.method_of(name) for name in {**study.depth, **study.experts, **study.settling}}
    notes = [
        "Routers of the best shapes at the largest budget, one model and one seed each, on validation tokens. More "
        "depth does not show that depth helps. Bands and lines: 95 % CI over documents (jackknife, t)."
    ]
    drawings = there(*profile_figures(study, names), *expert_figures(study, names), settling_figure(study, names))
    folded = f"Depth and experts by position, frequency, difficulty and kind, of {study.tokens:,} validation tokens"
    tables = [rank_table(study, names), correlations_table(study, names)]
    return Part("tokens", heading, notes, drawings, tables, folded=folded)


def rank_table(study: TokenStudy, names: dict[str, str]) -> Table:
    """A row per property: rank correlations with the depth used over all routed layers, method by method."""
    cells: dict[str, dict[tuple[str, bool], str]] = {}
    for method, use in study.depth.items():
        for each in (each for each in use.correlations if each.layer == "all"):
            text = with_interval(each.rho, each.low, each.high, signed)
            cells.setdefault(each.covariate, {})[method, each.given != "none"] = text
    columns = [(method, adjusted) for method in study.depth for adjusted in (False, True)]
    rows = [[name, *(own.get(column, DASH) for column in columns)] for name, own in cells.items()]
    headings = [title(names[method]) + (", adjusted" if adjusted else "") for method, adjusted in columns]
    caption = (
        f"Spearman’s rank correlation of the number of routed layers that process a token with its properties "
        f"({study.tokens:,} tokens, {study.documents} documents). Adjusted: at equal position, frequency and kind. "
        "Losses and entropies are Dense’s."
    )
    return Table("depth_correlations", caption, ["", *headings], rows, pd.DataFrame())


def correlations_table(study: TokenStudy, names: dict[str, str]) -> Table:
    """Every correlation, layer by layer, for the CSV alone."""
    data = pd.DataFrame(
        [{"method": names[method]} | each.model_dump() for method, use in study.depth.items()
         for each in use.correlations]
    )  # fmt: skip
    where = "rank correlations by layer, with intervals and Holm-adjusted p"
    return Table("token_correlations", where, [], [], data)


@styled
def profile_figures(study: TokenStudy, names: dict[str, str]) -> list[Drawing]:
    """Share of routed layers that process a token, by each property and by kind of token."""
    if not study.depth:
        return []
    colours = _colours(study.depth, names)
    found = []
    for name in next(iter(study.depth.values())).profiles:
        figure, axes = canvas()
        for method, use in study.depth.items():
            parts = use.profiles[name]
            x = [float(part.at or 0.0) for part in parts]
            ends = np.array([(np.nan, np.nan) if p.low is None else (p.low, p.high) for p in parts], dtype=float)
            axes.fill_between(x, *ends.T, color=colours[method], alpha=0.2)
            axes.plot(x, [p.share for p in parts], color=colours[method], marker="o",
                      markersize=3, label=title(names[method]))  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
        axes.set_xlabel({"frequency": "log of the token’s count in training text"}.get(name, name))
        axes.set_ylabel("routed layers that process it")
        axes.legend()
        found.append(
            finish(
                figure, f"depth_by_{slug(name)}", f"Depth by {name}",
                f"Mean share of routed layers that process a token, against {name}.",
                "",
            )
        )  # fmt: skip
    return [*found, _by_kind(study, names, colours)]


def _by_kind(study: TokenStudy, names: dict[str, str], colours: dict[str, str]) -> Drawing:
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
    axes.legend(handles=[Patch(color=colours[name], alpha=0.8, label=title(names[name])) for name in study.depth])
    return finish(
        figure, "depth_by_kind", "Depth by kind of token",
        "Mean share of routed layers that process a token, by its kind.",
        "",
    )  # fmt: skip


@styled
def expert_figures(study: TokenStudy, names: dict[str, str]) -> list[Drawing]:
    """For each method with experts: the kinds of token its experts take, and the experts chosen together."""
    colours = _colours(study.experts, names)
    found = []
    for method, layers in study.experts.items():
        most = max(layers, key=lambda each: each.information)
        found.append(_kinds_figure(names[method], most, study.kinds, colours[method]))
        found.append(_together_figure(names[method], most, colours[method]))
    return found


def _kinds_figure(method: str, use: ExpertUse, kinds: list[str], colour: str) -> Drawing:
    share = np.array(use.share_by_kind)
    information = with_interval(use.information, use.information_low, use.information_high, percent)
    there = [number for number in range(len(kinds)) if share[number].sum() > 0]
    figure, axes = canvas(height=1.0 + 0.26 * len(there))
    _cells(axes, share[there], colour)
    axes.set_yticks(np.arange(len(there)) + 0.5, [kinds[number] for number in there])
    axes.set_xlabel("expert")
    return finish(
        figure, f"experts_by_kind_{slug(method)}", f"Experts by kind of token, {title(method)}",
        f"Share of each kind of token's choices that each expert of {title(method)} gets, layer {use.layer}.",
        f"Percent of a kind’s choices in layer {use.layer}, the most specialised. Experts explain {information} "
        "of the kind’s entropy.",
    )  # fmt: skip


def _together_figure(method: str, use: ExpertUse, colour: str) -> Drawing:
    figure, axes = canvas(height=3.2)
    _cells(axes, np.array(use.together), colour)
    axes.set_yticks(np.arange(len(use.together)) + 0.5, [str(n + 1) for n in range(len(use.together))])
    axes.set_xlabel("also chosen")
    axes.set_ylabel("expert")
    return finish(
        figure, f"experts_together_{slug(method)}", f"Experts chosen together, {title(method)}",
        f"Share of each expert's tokens that chose another one too, {title(method)}, layer {use.layer}.",
        f"Percent of the row’s tokens, layer {use.layer}; independent choices give even columns.",
    )  # fmt: skip


def _cells(axes, values: np.ndarray, colour: str) -> None:
    share_cells(axes, values, colour, fontsize=10.5)
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, [str(n + 1) for n in range(values.shape[1])])


def _colours(found: Mapping[str, object], names: dict[str, str]) -> dict[str, str]:
    """A colour by the study's name of each method."""
    colours = method_colours([names[name] for name in found])
    return {name: colours[names[name]] for name in found}


@styled
def settling_figure(study: TokenStudy, names: dict[str, str]) -> Drawing | None:
    """Agreement of routing decisions with the final ones, over training."""
    if not study.settling:
        return None
    colours = _colours(study.settling, names)
    figure, axes = canvas()
    for method, points in study.settling.items():
        for name, style in (("depth", "-"), ("experts", "--")):
            own = pd.DataFrame([point.model_dump() for point in points], dtype=float).dropna(subset=name)
            if len(own):
                axes.fill_between(
                    own["share"], own[f"{name}_low"], own[f"{name}_high"], color=colours[method], alpha=0.2
                )
                label = f"{title(names[method])}, {name}"
                axes.plot(own["share"], own[name], style, marker="o", markersize=3, color=colours[method], label=label)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("share of the training budget")
    axes.set_ylabel("agreement with the final routing")
    axes.legend()
    return finish(
        figure, "settling", "When routing settles",
        "Share of the final routing decisions that were already made, over training.",
        "Depth: of the finally processed tokens. Experts: of the finally chosen experts.",
    )  # fmt: skip
