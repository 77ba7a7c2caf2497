"""The figure and the table of a fit."""

from __future__ import annotations

import numpy as np

from bench.fit.fits import Fits
from bench.fit.parabolas import Estimate
from bench.fit.points import Points
from bench.report.figures import MUTED, Drawing, canvas, finish, method_colours, styled
from bench.report.formats import DASH, power, significant


@styled
def figure(points: Points, fits: Fits) -> Drawing:
    """Loss against params: points, a parabola a budget, minima that count filled and those that do not hollow."""
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
                axes.plot(x, y, color=colours[name], linewidth=1)
            if optimum.params and optimum.loss and optimum.status == "ok":
                axes.plot(optimum.params.value, optimum.loss.value, "o", color=colours[name], markersize=6)
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
        "Filled circles: minima that count. Others are named with the reason.",
    )


def table(fits: Fits) -> str:
    """Markdown: optima, exponents, parametric fits and dense-equivalent compute."""
    lines = ["# isoFLOP fits", ""]
    lines += [f"- {note}" for note in fits.notes] + [""] * bool(fits.notes)
    lines += ["| method | FLOPs | params at the optimum | tokens | loss | dense needs, times the FLOPs | status |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, own in fits.optima.items():
        equivalent = {each.flops: each for each in fits.equivalents.get(name, [])}
        for optimum in own.optima:
            times = next((e for flops, e in equivalent.items() if np.isclose(flops, optimum.flops)), None)
            cells = [_cell(optimum.params), _cell(optimum.tokens), _cell(optimum.loss, 4)]
            cells.append(_cell(times.times) + (" (extrapolated)" if times.extrapolated else "") if times else DASH)
            lines.append(f"| {_safe(name)} | {power(optimum.flops)} | {' | '.join(cells)} | {optimum.status} |")
    lines += ["", "| method | params ∝ FLOPs^ | tokens ∝ FLOPs^ | E | A | B | alpha | beta |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, own in fits.optima.items():
        law = fits.parametric[name]
        parts = [getattr(law, key) if law else None for key in ("E", "A", "B", "alpha", "beta")]
        cells = [_cell(own.params_exponent), _cell(own.tokens_exponent), *map(_cell, parts)]
        lines.append(f"| {_safe(name)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Values with their 95 % bootstrap interval.", ""])


def _cell(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return DASH
    if estimate.low is None or estimate.high is None:
        return significant(estimate.value, digits)
    return (
        f"{significant(estimate.value, digits)} "
        f"({significant(estimate.low, digits)} to {significant(estimate.high, digits)})"
    )


def _safe(name: str) -> str:
    return name.replace("|", "\\|").replace("<", "&lt;")
