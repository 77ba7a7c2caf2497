"""Scaling laws and dense-equivalent compute."""

from __future__ import annotations

import pandas as pd

from bench.fit.fits import Fits
from bench.report.formats import power, times
from bench.report.isoflop.cells import cell, interval_columns
from bench.report.isoflop.part import Part
from bench.report.tables import Table


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
    caption = "Exponents of compute-optimal params and tokens, and the parametric law, with 95 % bootstrap intervals."
    columns = ["", "params ∝ FLOPs^", "tokens ∝ FLOPs^", "E", "alpha", "beta", "params exponent by the law"]
    return Table("laws", caption, columns, rows, pd.DataFrame(data))


def equivalents_table(fits: Fits) -> Table:
    """A row a method and budget."""
    rows, data = [], []
    for method, own in fits.equivalents.items():
        for each in own:
            beyond = "beyond dense’s optima: an extrapolation" if each.extrapolated else "between dense’s optima"
            rows.append([f"{method}, {power(each.flops)} FLOPs", cell(each.times, times), beyond])
            row = {"method": method, "flops": each.flops, "extrapolated": each.extrapolated}
            data.append(row | interval_columns(each.times, "times"))
    caption = "Dense-equivalent compute: how many times the FLOPs dense needs for the method’s best loss."
    return Table("dense_equivalent", caption, ["", "dense needs", ""], rows, pd.DataFrame(data))
