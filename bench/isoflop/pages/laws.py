"""Scaling laws and dense-equivalent compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bench.formats import power, times
from bench.isoflop.analysis.documents import between_best
from bench.isoflop.analysis.results import REFERENCE, Results
from bench.isoflop.pages.cells import cell, interval_columns
from bench.isoflop.pages.section import Part
from bench.report.tables import Table
from bench.stats.fits import Equivalent, Fits, equivalents, fit
from bench.stats.points import check_points

_BOOTSTRAPS = 1000


def study_fits(results: Results) -> Fits:
    """Fits by stored parameters to the runs that curves are made of, as `python -m bench.fit` makes them.

    Except that dense-equivalent compute, which rests on a difference of losses, knows of held-out documents.
    """
    own = results.sized
    frame = pd.DataFrame(
        {"method": own["method"], "flops": own["flops"], "loss": own["loss"], "params": own["params_total"],
         "tokens": own["tokens"]}
    )  # fmt: skip
    fits = fit(check_points(frame, results.study.name), _BOOTSTRAPS)
    rng = np.random.default_rng(3)  # of documents; those of curves and of fits are others
    return replace(fits, equivalents={name: _with_documents(results, fits, name, rng) for name in fits.equivalents})


def _with_documents(results: Results, fits: Fits, method: str, rng: np.random.Generator) -> list[Equivalent]:
    own = fits.optima[method]
    draws = own.loss_draws.copy()
    for place in range(draws.shape[1]):
        budget = results.budget_of(float(np.exp(own.log_flops[place])))
        draws[:, place] += between_best(results, method, REFERENCE, budget).errors(1 + len(draws), rng)[1:]
    return equivalents(replace(own, loss_draws=draws), fits.optima[REFERENCE])


def laws_part(fits: Fits) -> Part:
    """Exponents and dense-equivalent compute."""
    notes = [
        "Approach 2: optima over budgets. Approach 3: L = E + A / N^alpha + B / D^beta on all runs, N being stored "
        "parameters. Beyond the budgets that were run these are extrapolations; so narrow a range of budgets does not "
        "pin exponents down.",
    ]
    return Part("laws", "Scaling laws", notes, tables=[laws_table(fits), equivalents_table(fits)])


def laws_table(fits: Fits) -> Table:
    """A row a method: compute-optimal exponents by both approaches."""
    rows, data = [], []
    for method, own in fits.optima.items():
        law = fits.parametric[method]
        values = [own.params_exponent, own.tokens_exponent]
        values += [getattr(law, key) if law else None for key in ("E", "alpha", "beta", "params_exponent")]
        rows.append([method, *(cell(value) for value in values)])
        names = ("params_exponent", "tokens_exponent", "E", "alpha", "beta", "parametric_params_exponent")
        row: dict[str, object] = {"method": method}
        for name, value in zip(names, values, strict=True):
            row |= interval_columns(value, name)
        data.append(row)
    caption = (
        "Exponents of compute-optimal params and tokens, and the parametric law, with 95 % bootstrap intervals, in "
        "which drawn optima stand where their parabolas put them, beyond the sizes that were run, too."
    )
    columns = ["", "params ∝ FLOPs^", "tokens ∝ FLOPs^", "E", "alpha", "beta", "params exponent by the law"]
    return Table("laws", caption, columns, rows, pd.DataFrame(data))


def equivalents_table(fits: Fits) -> Table:
    """A row a method and budget."""
    rows, data = [], []
    for method, own in fits.equivalents.items():
        for each in own:
            where = "beyond dense’s optima" if each.extrapolated else "between dense’s optima"
            beyond = f"{where}: {each.warning}" if each.warning else where
            rows.append([f"{method}, {power(each.flops)} FLOPs", cell(each.times, times), beyond])
            row = {"method": method, "flops": each.flops, "extrapolated": each.extrapolated}
            row |= dict(zip(("low_extrapolated", "high_extrapolated"), each.ends_extrapolated, strict=True))
            data.append(row | interval_columns(each.times, "times"))
    caption = (
        "Dense-equivalent compute: how many times the FLOPs dense needs for the method’s best loss, with 95 % "
        "intervals over the scatter of runs about their curves and over held-out documents. What is beyond the budgets "
        "of dense’s own optima is an extrapolation."
    )
    return Table("dense_equivalent", caption, ["", "dense needs", ""], rows, pd.DataFrame(data))
