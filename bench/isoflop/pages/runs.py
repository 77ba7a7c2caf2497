"""Every run of the study, and how closely each kept to its budget."""

from __future__ import annotations

from bench.formats import DASH, decimal, power, scaled, significant
from bench.isoflop.analysis.results import Results
from bench.isoflop.pages.section import Part
from bench.report.tables import Table


def runs_part(results: Results) -> Part:
    """The table of all runs."""
    return Part("runs", "Every run", [], tables=[runs_table(results)])


def runs_table(results: Results) -> Table:
    """A row a run, those of the sweep that are sizes, too, as sizes; `data` has everything known of it."""
    ordered = results.runs.sort_values(["stage", "budget", "method", "forward_flops", "seed"]).drop_duplicates("id")
    measured = ordered["joules"].notna().any()  # the machine has a counter of energy
    rows = [
        [
            f"{run.method}, {run.n_layers} × {run.d_model}, seed {run.seed}", str(run.stage), power(run.budget),
            decimal((run.flops - run.budget) / (run.flops / run.steps), 2), scaled(run.tokens),
            DASH if results.passes is None else decimal(results.passes[run.Index], 2), scaled(run.params_total),
            significant(run.lr), decimal(run.loss, 4), *([scaled(run.joules, "J")] if measured else []), str(run.id),
        ]
        for run in ordered.itertuples()
    ]  # fmt: skip
    caption = (
        "Every run that counts; those that do not are named at the top. Off by: training FLOPs minus the budget, in "
        "steps of that run. Passes: how many times it read the training text."
    )
    if not measured:
        caption += " Energy is not given: the machine has no counter of it that could be read."
    columns = ["", "stage", "budget, FLOPs", "off by, steps", "tokens", "passes", "params", "learning rate", "loss"]
    return Table("runs", caption, [*columns, *(["energy"] if measured else []), "record"], rows, ordered)
