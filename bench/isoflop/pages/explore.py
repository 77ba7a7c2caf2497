"""The runs and curves of a study as data of the page, which isoflop.js draws against a size that the reader picks."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.formats import power
from bench.isoflop.analysis.curves import Curve, curves, with_draws
from bench.isoflop.analysis.results import Results, title
from bench.isoflop.pages.sizes import SIZES
from bench.web.data import short
from bench.web.figures import method_colours, themed


def explore_data(results: Results) -> dict[str, Any]:
    """runs: method, budget (their places), layers, width, seed, loss, tokens, then each of `sizes`.

    curves: for each size, method and budget (their places), whether the fit has an optimum, points of the curve (x, y),
    and the optimum with its interval of loss.
    """
    colours = method_colours(results.methods)
    sized = results.sized.sort_values(["budget", "method", "forward_flops", "seed"])
    places = {budget: place for place, budget in enumerate(results.budgets)}
    runs = [
        [results.methods.index(run.method), places[run.budget], int(run.n_layers), int(run.d_model), int(run.seed),
         *short([run.loss, run.tokens, *(getattr(run, size) for size in SIZES)])]
        for run in sized.itertuples()
    ]  # fmt: skip
    fitted = [
        [[results.methods.index(method), places[budget], *_curve(curve)]
         for (method, budget), curve in curves(results, size).items()]
        for size in SIZES
    ]  # fmt: skip
    return {
        "methods": [{"name": title(name), "colour": themed(colours[name])} for name in results.methods],
        "budgets": [power(budget) for budget in results.budgets],
        "sizes": list(SIZES.values()),
        "runs": runs,
        "curves": fitted,
    }


def _curve(curve: Curve) -> list[Any]:
    sizes = np.linspace(*curve.budget.ends, 40)
    losses = np.polynomial.polynomial.polyval(sizes - curve.budget.centre, curve.coefficients)
    at, loss = curve.optimum
    optimum = with_draws(loss)
    best = [float(np.exp(at[0])), optimum.value, optimum.low, optimum.high] if curve.inside else []
    return [int(curve.inside), short(np.exp(sizes).tolist(), 5), short(losses.tolist(), 5), short(best, 5)]
