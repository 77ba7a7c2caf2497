"""The tables of an isoFLOP report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from bench.fit.fits import Fits
from bench.fit.parabolas import Estimate
from bench.report.formats import (
    DASH,
    count,
    decimal,
    duration,
    percent,
    power,
    scaled,
    signed,
    significant,
    times,
    with_interval,
)
from bench.report.isoflop.curves import CONTRACTS, Comparison, Parity
from bench.report.isoflop.results import REFERENCE, Results
from bench.report.isoflop.seeds import SeedDifference, best_difference
from bench.report.settings import CONTRACTS as CONTRACT_WORDS
from bench.report.tables import Table


def difference_cell(value: Estimate | SeedDifference | None) -> str:
    """A difference with its interval, signed."""
    return _plain(value, signed)


def _plain(value: Estimate | SeedDifference | None, write: Callable[[float], str] = significant) -> str:
    return DASH if value is None else with_interval(value.value, value.low, value.high, write)


def _data(value: Estimate | SeedDifference | None, name: str) -> dict[str, float | None]:
    numbers = (value.value, value.low, value.high) if value else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def optima_table(results: Results, fits: Fits) -> Table:
    rows, data = [], []
    for method, own in fits.optima.items():
        for optimum in own.optima:
            values = ((optimum.params, scaled), (optimum.tokens, scaled), (optimum.loss, decimal))
            cells = [_plain(value if optimum.status == "ok" else None, write) for value, write in values]
            rows.append([f"{method}, {power(optimum.flops)} FLOPs", str(optimum.points), *cells, optimum.status])
            data.append(
                {"method": method, "flops": optimum.flops, "points": optimum.points, "status": optimum.status}
                | _data(optimum.params, "params") | _data(optimum.tokens, "tokens") | _data(optimum.loss, "loss")
            )  # fmt: skip
    caption = (
        "Minimum of the parabola through a budget’s runs, with 95 % bootstrap intervals; params: stored parameters. "
        "A minimum outside the sizes that were run (edge), or a parabola that opens downwards, gives no optimum."
    )
    return Table("optima", caption, ["", "runs", "params", "tokens", "loss", "status"], rows, pd.DataFrame(data))


def seeds_table(results: Results) -> Table:
    """The best shapes run with several seeds, against dense's."""
    rows, data = [], []
    for budget in results.budgets:
        for method in results.methods:
            best = results.best(method, budget)
            losses = best["loss"].to_numpy(dtype=float)
            value = None if method == REFERENCE else best_difference(results, method, REFERENCE, budget)
            detectable = value.detectable if value else None
            spread = float(losses.std(ddof=1)) if len(losses) > 1 else None
            fresh = value.fresh if value else None
            shape = f"{best['n_layers'].iloc[0]} × {best['d_model'].iloc[0]}"
            rows.append(
                [
                    f"{method}, {power(budget)} FLOPs", shape, str(len(losses)), decimal(float(losses.mean())),
                    decimal(spread), difference_cell(value), signed(fresh), decimal(detectable),
                ]
            )  # fmt: skip
            data.append(
                {"method": method, "budget": budget, "shape": shape, "seeds": len(losses), "loss": losses.mean(),
                 "sd": spread, "fresh": fresh, "detectable": detectable}
                | _data(value, "minus_dense")
            )  # fmt: skip
    caption = (
        "The best shape of each method and budget (layers × width), with several seeds, minus dense’s best shape. The "
        "interval is over seeds, whose spread is pooled over all shapes of the budget, and over held-out documents. "
        "Shapes were chosen on seed 0; fresh: the difference without it. Detectable: the true difference that would be "
        "found with 80 % power."
    )
    columns = ["", "shape", "seeds", "loss", "sd over seeds", "minus dense (95 %)", "fresh", "detectable"]
    return Table("seeds", caption, columns, rows, pd.DataFrame(data))


def contracts_table(results: Results, compared: list[Comparison]) -> Table:
    cells = {(c.method, c.budget, c.contract): c for c in compared}
    rows = []
    for method in results.methods:
        if method == REFERENCE:
            continue
        for budget in results.budgets:
            own = [cells[method, budget, contract] for contract in CONTRACTS]
            rows.append(
                [f"{method}, {power(budget)} FLOPs", *(difference_cell(c.value) if c.value else c.why for c in own)]
            )
    data = pd.DataFrame(
        [{"method": c.method, "budget": c.budget, "contract": c.contract, "why_not": c.why}
         | _data(c.value, "minus_dense") for c in compared]
    )  # fmt: skip
    caption = "Held-out loss minus dense’s, nats a token, with 95 % bootstrap intervals; below 0 the method is better."
    return Table("contracts", caption, ["", *(CONTRACT_WORDS[name] for name in CONTRACTS)], rows, data)


def parity_table(matched: list[Parity]) -> Table:
    rows = [
        [
            f"{p.method}, {power(p.budget)} FLOPs",
            _plain(p.forward_flops, times) if p.forward_flops else p.why,
            _plain(p.step_time, times), _plain(p.optimum_flops, times),
        ]
        for p in matched
    ]  # fmt: skip
    data = pd.DataFrame(
        [{"method": p.method, "budget": p.budget} | _data(p.forward_flops, "forward_flops")
         | _data(p.step_time, "step_time") | _data(p.optimum_flops, "optimum_flops") for p in matched]
    )  # fmt: skip
    caption = (
        "The smallest model of each method that reaches dense’s best loss at the same training FLOPs, over dense’s "
        "best: FLOPs of a forward pass and time of a training step, for equally many tokens. Last: forward FLOPs of "
        "the method’s own optimum over dense’s. Or more, or less: the interval goes beyond the sizes that were run."
    )
    return Table("parity", caption, ["", "FLOPs at parity", "step time at parity", "FLOPs of its optimum"], rows, data)


def timings_table(results: Results) -> Table:
    timings = results.study.timings
    rows = [
        [
            f"{t.method}, {t.n_layers} × {t.d_model}", scaled(t.step_flops), duration(t.step_seconds.median),
            decimal(t.step_flops / t.step_seconds.median / 1e9, 1),
            f"{times(t.over_dense.median)} ({times(t.over_dense.low)} to {times(t.over_dense.high)})"
            if t.over_dense else DASH,
        ]
        for t in timings
    ]  # fmt: skip
    caption = "A training step of every method and shape, all timed in turn in one process with nothing beside it."
    columns = ["", "FLOPs", "step", "GFLOP/s", "over dense of the same shape"]
    return Table("step_times", caption, columns, rows, pd.json_normalize([t.model_dump() for t in timings]))


def laws_table(fits: Fits) -> Table:
    rows, data = [], []
    for method, own in fits.optima.items():
        law = fits.parametric[method]
        values = [own.params_exponent, own.tokens_exponent]
        values += [getattr(law, key) if law else None for key in ("E", "alpha", "beta", "params_exponent")]
        rows.append([method, *(_plain(value) for value in values)])
        names = ("params_exponent", "tokens_exponent", "E", "alpha", "beta", "parametric_params_exponent")
        row: dict[str, object] = {"method": method}
        for name, value in zip(names, values, strict=True):
            row |= _data(value, name)
        data.append(row)
    caption = "Exponents of compute-optimal params and tokens, and the parametric law, with 95 % bootstrap intervals."
    columns = ["", "params ∝ FLOPs^", "tokens ∝ FLOPs^", "E", "alpha", "beta", "params exponent by the law"]
    return Table("laws", caption, columns, rows, pd.DataFrame(data))


def equivalents_table(results: Results, fits: Fits) -> Table:
    rows, data = [], []
    for method, own in fits.equivalents.items():
        for each in own:
            beyond = "beyond dense’s optima: an extrapolation" if each.extrapolated else "between dense’s optima"
            rows.append([f"{method}, {power(each.flops)} FLOPs", _plain(each.times, times), beyond])
            row = {"method": method, "flops": each.flops, "extrapolated": each.extrapolated}
            data.append(row | _data(each.times, "times"))
    caption = "Dense-equivalent compute: how many times the FLOPs dense needs for the method’s best loss."
    return Table("dense_equivalent", caption, ["", "dense needs", ""], rows, pd.DataFrame(data))


def controls_table(results: Results) -> Table:
    controls = results.runs[results.runs["stage"] == "controls"]
    rows = []
    if not controls.empty:
        for (method, capacity), own in controls.groupby(["method", "capacity"], dropna=False, sort=False):
            spread = float(own["loss"].std(ddof=1)) if len(own) > 1 else None
            where = f", capacity {percent(capacity)}" if capacity is not None and np.isfinite(capacity) else ""
            accuracy, learned = own["accuracy"].mean(), (own["router"] == "learned").all()
            rows.append(
                [
                    f"{method}{where}", f"{own['n_layers'].iloc[0]} × {own['d_model'].iloc[0]}", str(len(own)),
                    decimal(float(own["loss"].mean())), decimal(spread),
                    percent(float(accuracy)) if np.isfinite(accuracy) and learned else DASH,
                    percent(float(own["processed"].mean())) if own["processed"].notna().any() else DASH,
                ]
            )  # fmt: skip
    caption = "Controls at one budget, on the best shape of the method that they are controls of."
    columns = ["", "shape", "seeds", "loss", "sd over seeds", "agrees with top-k", "tokens processed"]
    return Table("controls", caption, columns, rows, controls)


def rates_table(results: Results) -> Table:
    rules = results.study.learning_rates
    rows = [
        [results.labels.get(name, name), significant(rule.lr_at_128), rule.status, count(len(rule.tried))]
        for name, rule in rules.items()
    ]
    data = pd.DataFrame(
        [{"method": name, "settled": rule.lr_at_128, "status": rule.status} | each.model_dump()
         for name, rule in rules.items() for each in rule.tried]
    )  # fmt: skip
    caption = (
        "Learning rates: settled on for each method at the smallest budget, then scaled by sqrt(128 / width) for every "
        "size. Edge: the best was the lowest or highest tried."
    )
    return Table("learning_rates", caption, ["", "at width 128", "", "runs"], rows, data)


def runs_table(results: Results) -> Table:
    ordered = results.runs.sort_values(["stage", "budget", "method", "forward_flops", "seed"])
    measured = ordered["joules"].notna().any()  # the machine has a counter of energy
    rows = [
        [
            f"{run.method}, {run.n_layers} × {run.d_model}, seed {run.seed}", str(run.stage), scaled(run.flops),
            scaled(run.tokens), scaled(run.params_total), significant(run.lr), decimal(run.loss, 4),
            *([scaled(run.joules, "J")] if measured else []), str(run.id),
        ]
        for run in ordered.itertuples()
    ]  # fmt: skip
    caption = "Every run that counts. Those that do not are named at the top."
    columns = ["", "stage", "training FLOPs", "tokens", "params", "learning rate", "loss"]
    return Table("runs", caption, [*columns, *(["energy"] if measured else []), "record"], rows, ordered)
