"""The figure and the table of a fit."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.formats import DASH, power, significant, with_interval
from bench.stats.fits import Fits
from bench.stats.interval import Interval
from bench.web.figures import MUTED, Drawing, canvas, error_bars, finish, method_colours, styled

REJECTED: dict[str, Any] = {"linestyle": "--", "alpha": 0.45}  # a parabola without a valid minimum
_OPEN = "(interval open)"  # too many resamples had no such value


@styled
def figure(fits: Fits) -> Drawing:
    """Loss against params: points, a parabola per budget and its minimum; rejected fits are dashed."""
    points, colours = fits.points, method_colours(fits.points.methods)
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
    axes.set_ylabel("loss, nats/token")
    axes.legend()
    return finish(
        drawing,
        "fit",
        "Loss against parameters by budget",
        f"Loss against parameters for {', '.join(points.methods)}, with fitted parabolas and their minima.",
        "Circles: optima. Dashed: rejected fits, with the reason.",
    )


def table(fits: Fits, title: Callable[[str], str] = str) -> str:
    """Markdown: optima, dense-equivalent compute, power laws and parametric laws; `title` writes a method's name."""
    lines = ["# isoFLOP fits", ""]
    lines += [f"- {_safe(note)}" for note in fits.notes] + [""] * bool(fits.notes)
    lines += ["| method | FLOPs | optimal params | tokens | loss, nats/token | dense needs, times the FLOPs | status |"]
    lines += ["| --- | --: | --: | --: | --: | --: | --- |"]
    for name, own in fits.optima.items():
        for optimum in own.optima:
            times = fits.equivalent(name, optimum.flops)
            counts = optimum.status == "ok"
            cells = [
                _cell(value if counts else None, fits.bootstraps, digits)
                for value, digits in ((optimum.params, 3), (optimum.tokens, 3), (optimum.loss, 4))
            ]
            far = f" ({times.warning})" if times and times.warning else ""
            cells.append(_cell(times.times if times else None, fits.bootstraps) + far)
            status = optimum.status + (", near grid edge" if optimum.near_edge else "")
            lines.append(f"| {_safe(title(name))} | {power(optimum.flops)} | {' | '.join(cells)} | {status} |")
    lines += [
        "",
        "Exponent of optimal params by approach 2, its minima weighted by precision or alike, and by approach 3.",
        "",
    ]
    lines += _exponents(fits, title)
    lines += ["", "Power laws of the optima (approach 2): value = coefficient x FLOPs^exponent.", ""]
    lines += _rows(fits, fits.optima, _LAWS, title)
    lines += ["", "Parametric law (approach 3): L = E + A / N^alpha + B / D^beta, N params, D tokens.", ""]
    lines += _rows(fits, fits.parametric, _PARAMETERS, title)
    if fits.predictions:
        lines += ["", "Predictions. Far beyond the budgets that were run, the laws themselves may not hold.", ""]
        lines += _predicted(fits, title)
    intervals = "Brackets: 95 % intervals; “or more” and “or less” reach beyond the sizes that were run."
    return "\n".join([*lines, "", intervals if fits.bootstraps else "No intervals (--bootstraps 0).", ""])


_LAWS = {
    "params coefficient": "params_coefficient", "tokens exponent": "tokens_exponent",
    "tokens coefficient": "tokens_coefficient",
}  # fmt: skip
_PARAMETERS = {name: name for name in ("E", "A", "B", "alpha", "beta")}


def _exponents(fits: Fits, title: Callable[[str], str]) -> list[str]:
    """A row per method, the approaches side by side."""
    rows = [["method", "parabolas (2)", "parabolas, unweighted", "parametric law (3)"], ["---", "--:", "--:", "--:"]]
    for name, own in fits.optima.items():
        law = fits.parametric[name]
        unweighted = own.unweighted.slope if own.unweighted else None
        values = (own.params_exponent, unweighted, law.params_exponent if law else None)
        rows.append([_safe(title(name)), *(_cell(value, fits.bootstraps) for value in values)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _predicted(fits: Fits, title: Callable[[str], str]) -> list[str]:
    """A row per method, budget and approach."""
    rows = [["method", "FLOPs", "approach", "optimal params", "tokens", "loss, nats/token"]]
    rows += [["---", "--:", "--:", "--:", "--:", "--:"]]
    for each in fits.predictions:
        cells = [
            _cell(value, fits.bootstraps, digits)
            for value, digits in ((each.params, 3), (each.tokens, 3), (each.loss, 4))
        ]
        rows.append([_safe(title(each.method)), power(each.flops), str(each.approach), *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def _rows(fits: Fits, of: Mapping[str, object], columns: dict[str, str], title: Callable[[str], str]) -> list[str]:
    """A table with a row per method; `columns`: heading -> attribute of what `of` holds for it."""
    rows = [["method", *columns], ["---", *["--:"] * len(columns)]]
    for name, own in of.items():
        rows.append(
            [_safe(title(name)), *(_cell(getattr(own, key, None), fits.bootstraps) for key in columns.values())]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(interval: Interval | None, bootstraps: int, digits: int = 3) -> str:
    """A value with its interval, or a note that the interval is open."""
    if interval is None:
        return DASH
    text = with_interval(interval.value, interval.low, interval.high, lambda value: significant(value, digits))
    return text if interval.low is not None or not bootstraps else f"{text} {_OPEN}"


def _safe(text: str) -> str:
    """Plain characters in a Markdown table: no HTML, no links, no emphasis."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
