"""The figure and the table of a fit."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.formats import DASH, power, significant, with_interval
from bench.report.figures import MUTED, Drawing, canvas, error_bars, finish, method_colours, styled
from bench.stats.fits import Fits
from bench.stats.parabolas import OPEN_INTERVAL, Estimate
from bench.stats.points import Points

REJECTED: dict[str, Any] = {"linestyle": "--", "alpha": 0.45}  # a parabola whose minimum does not count


@styled
def figure(points: Points, fits: Fits) -> Drawing:
    """Loss against params: points, a parabola a budget and the minima that count; the others are dashed."""
    colours = method_colours(points.methods)
    drawing, axes = canvas(6.4, 4.2)
    for name, own in fits.optima.items():
        data = points.of(name)
        axes.scatter(data["params"], data["loss"], s=9, color=colours[name], alpha=0.6, label=name, linewidths=0)
        for optimum in own.optima:
            sizes = data.loc[data["budget"] == optimum.flops, "params"]
            if optimum.curve is not None:
                z = np.linspace(np.log(sizes.min()), np.log(sizes.max()), 80) - np.log(optimum.centre)
                x, y = optimum.centre * np.exp(z), np.polynomial.polynomial.polyval(z, optimum.curve)
                counts = optimum.status == "ok"
                axes.plot(x, y, color=colours[name], linewidth=1, **({} if counts else REJECTED))
            if optimum.params and optimum.loss and optimum.status == "ok":
                error_bars(axes, [optimum.loss.value], [optimum.params], colours[name], horizontal=True, markersize=6)
            elif len(sizes):
                axes.annotate(
                    f"{name}, {power(optimum.flops)} FLOPs: {optimum.status}",
                    (float(sizes.max()), float(data.loc[sizes.index, "loss"].min())),
                    color=MUTED, fontsize=7, ha="right", va="top",
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel("loss, nats a token")
    axes.legend()
    return finish(
        drawing,
        "fit",
        "Loss against parameters, a parabola a budget",
        f"Loss against parameters for {', '.join(points.methods)}, with fitted parabolas and their minima.",
        "Circles: minima that count, with the 95 % CI of their parameters. Dashed, pale parabolas give none, for the "
        "reason beside them.",
    )


def table(fits: Fits) -> str:
    """Markdown: optima, dense-equivalent compute, laws and parametric fits."""
    lines = ["# isoFLOP fits", ""]
    lines += [f"- {_safe(note)}" for note in fits.notes] + [""] * bool(fits.notes)
    lines += ["| method | FLOPs | params at the optimum | tokens | loss | dense needs, times the FLOPs | status |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, own in fits.optima.items():
        equivalent = {each.flops: each for each in fits.equivalents.get(name, [])}
        for optimum in own.optima:
            times = next((e for flops, e in equivalent.items() if np.isclose(flops, optimum.flops)), None)
            counts = optimum.status == "ok"  # or its values stand for nothing
            cells = [
                _cell(value if counts else None, fits.bootstraps, digits)
                for value, digits in ((optimum.params, 3), (optimum.tokens, 3), (optimum.loss, 4))
            ]
            far = f" ({times.warning})" if times and times.warning else ""
            cells.append(_cell(times.times if times else None, fits.bootstraps) + far)
            status = optimum.status + (", near the edge" if optimum.near_edge else "")
            lines.append(f"| {_safe(name)} | {power(optimum.flops)} | {' | '.join(cells)} | {status} |")
    lines += ["", "Laws of the optima (approach 2): value = coefficient x FLOPs^exponent.", ""]
    lines += _rows(fits, fits.optima, _LAWS)
    lines += ["", "L = E + A / N^alpha + B / D^beta (approach 3), and the exponent of params that follows from it.", ""]
    lines += _rows(fits, fits.parametric, _PARAMETERS)
    told = "Values with their 95 % bootstrap interval; or more, or less: it goes beyond the sizes that were run."
    if not fits.bootstraps:
        told = "No intervals: none were asked for."
    return "\n".join([*lines, "", told, ""])


_LAWS = {
    "params exponent": "params_exponent", "params coefficient": "params_coefficient",
    "tokens exponent": "tokens_exponent", "tokens coefficient": "tokens_coefficient",
}  # fmt: skip
_PARAMETERS = {name: name for name in ("E", "A", "B", "alpha", "beta")} | {"params exponent": "params_exponent"}


def _rows(fits: Fits, of: Mapping[str, object], columns: dict[str, str]) -> list[str]:
    """A table with a row a method; `columns`: heading -> attribute of what `of` holds for it."""
    rows = [["method", *columns], ["---"] * (1 + len(columns))]
    for name, own in of.items():
        rows.append([_safe(name), *(_cell(getattr(own, key, None), fits.bootstraps) for key in columns.values())])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(estimate: Estimate | None, bootstraps: int, digits: int = 3) -> str:
    """A value with its interval; where resamples left none, that is said, for such a value is the least sure."""
    if estimate is None:
        return DASH
    text = with_interval(estimate.value, estimate.low, estimate.high, lambda value: significant(value, digits))
    return text if estimate.low is not None or not bootstraps else f"{text} {OPEN_INTERVAL}"


def _safe(text: str) -> str:
    """Plain characters in a Markdown table: no HTML, no links, no emphasis."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
