"""Scaling laws and dense-equivalent compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bench.fit import isoflop
from bench.formats import significant, times
from bench.isoflop.analysis.differences import document_noise, drawn
from bench.isoflop.analysis.evidence import in_words
from bench.isoflop.analysis.results import REFERENCE, Results, title
from bench.isoflop.pages.section import NAMED, interval_columns, named
from bench.stats.fits import Equivalent, Fits, equivalents
from bench.web.page import Part
from bench.web.tables import Table

_BOOTSTRAPS = 1000


def study_fits(results: Results) -> Fits:
    """Fits by total parameters to the runs behind the curves, as `python -m bench.fit` makes them.

    The intervals of dense-equivalent compute cover validation documents too, because it rests on a loss difference.
    """
    own = results.sized
    frame = pd.DataFrame(
        {"method": own["method"], "flops": own["flops"], "loss": own["loss"], "params": own["params_total"],
         "tokens": own["tokens"]}
    )  # fmt: skip
    fits = isoflop(frame, _BOOTSTRAPS, title=title)
    rng = np.random.default_rng(3)  # for documents; those of curves and of fits are others
    return replace(fits, equivalents={name: _with_documents(results, fits, name, rng) for name in fits.equivalents})


def _with_documents(results: Results, fits: Fits, method: str, rng: np.random.Generator) -> list[Equivalent]:
    own = fits.optima[method]
    draws = own.loss_draws.copy()
    for place in range(draws.shape[1]):
        budget = results.budget_of(float(np.exp(own.log_flops[place])))
        draws[:, place] += drawn(document_noise(results, method, REFERENCE, budget), 1 + len(draws), rng)[1:]
    return equivalents(replace(own, loss_draws=draws), fits.optima[REFERENCE])


def laws_part(fits: Fits) -> Part:
    """Exponents and dense-equivalent compute."""
    notes = [
        "Approaches 2 and 3 of Hoffmann et al. 2022 (arXiv 2203.15556): power laws of the optima, and "
        "L = E + A/N^alpha + B/D^beta with N total parameters. A range of budgets this narrow extrapolates poorly."
    ]
    own = fits.optima[REFERENCE].params_exponent if REFERENCE in fits.optima else None
    found = f"; Dense’s optimal parameters grow as FLOPs to the power of {in_words(own, significant)}" if own else ""
    folded = f"Exponents of the compute-optimal sizes, and dense-equivalent compute{found}"
    tables = [laws_table(fits), equivalents_table(fits)]
    return Part("laws", "Scaling laws", notes, tables=tables, folded=folded)


def laws_table(fits: Fits) -> Table:
    """A row per method: compute-optimal exponents by both approaches."""
    rows, data = [], []
    for method, own in fits.optima.items():
        law = fits.parametric[method]
        values = [own.params_exponent, own.tokens_exponent]
        values += [getattr(law, key) if law else None for key in ("E", "alpha", "beta", "params_exponent")]
        shown = [value for place, value in enumerate(values) if place != 2]  # E is in the CSV
        rows.append([title(method), *(in_words(value, significant) for value in shown)])
        names = ("params_exponent", "tokens_exponent", "E", "alpha", "beta", "parametric_params_exponent")
        row: dict[str, object] = {"method": method}
        for name, value in zip(names, values, strict=True):
            row |= interval_columns(value, name)
        data.append(row)
    caption = "Exponents of compute-optimal params and tokens, and the parametric law (95 % CI)."
    columns = ["", "params ∝ FLOPs^", "tokens ∝ FLOPs^", "alpha", "beta", "params exponent by the law"]
    return Table("laws", caption, columns, rows, pd.DataFrame(data))


def equivalents_table(fits: Fits) -> Table:
    """A row per method and budget."""
    rows, data = [], []
    for method, own in fits.equivalents.items():
        for each in own:
            rows.append([named(method, each.flops), in_words(each.times, times), each.warning])
            row = {"method": method, "flops": each.flops, "extrapolated": each.extrapolated}
            row |= dict(zip(("low_extrapolated", "high_extrapolated"), each.ends_extrapolated, strict=True))
            data.append(row | interval_columns(each.times, "times"))
    caption = (
        "Dense-equivalent compute: how many times the FLOPs Dense needs for the method’s best loss (95 % CI). "
        "Values beyond the budgets of Dense’s optima are extrapolations."
    )
    return Table("dense_equivalent", caption, [NAMED, "Dense needs", ""], rows, pd.DataFrame(data))
