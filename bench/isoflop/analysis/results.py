"""An isoFLOP study as a table of runs: a row per run, with its stage, cost and validation loss.

Methods go by the string of their MethodId, `mode/staged`, in every table and lookup; `title` is the spelling for
people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.identity import MethodId
from bench.errors import UserError
from bench.records.isoflop import EARLIER, FILE, Stages, Study, StudySummary, Timed, load_earlier, load_study
from bench.records.record import Record, load_record
from bench.records.targets import FILE as TARGETS
from bench.records.targets import Targets, load_targets
from bench.report.differences import exclusion
from bench.report.load import Group, Method, RunFiles, read_files

REFERENCE = "dense"


def title(method: str) -> str:
    """As people write it: `mode/staged` is MoDE (staged)."""
    return MethodId.parse(method).title


@dataclass(frozen=True)
class Results:
    """`runs`: a row for each run that may be compared; `files`: run id -> its record and the files next to it."""

    study: Study
    runs: pd.DataFrame
    files: dict[str, RunFiles]
    problems: list[str]
    decode: Targets | None = None  # of the decode study in the same results folder
    earlier: list[StudySummary] = field(default_factory=list)  # studies of the same question

    @cached_property
    def methods(self) -> list[str]:
        """The study's methods, dense first."""
        return list(dict.fromkeys(self.sized["method"]))

    def method_of(self, name: str) -> str:
        """The method that the study's values call `name`, where a name without a variant means its default one."""
        if name in self.methods:
            return name
        taken = set(self.study.methods)
        namesakes = (method for method in self.methods if method not in taken and MethodId.parse(method).name == name)
        return next(namesakes, name)

    def rate_status(self, method: str) -> str:
        """How the method's learning rate was chosen: a status of `LearningRate`; empty if none was."""
        rules = self.study.learning_rates.items()
        return next((rule.status for name, rule in rules if self.method_of(name) == method), "")

    @cached_property
    def modes(self) -> list[str]:
        """The study's variants of MoDE."""
        return [method for method in self.methods if MethodId.parse(method).name == "mode"]

    def timings(self, method: str) -> list[Timed]:
        """The timed steps of a method."""
        return [timed for timed in self.study.timings if self.method_of(timed.method) == method]

    @cached_property
    def sized(self) -> pd.DataFrame:
        """The runs behind the isoFLOP curves: the grid, and more seeds at its optima."""
        return self.runs[self.runs["stage"].isin(["grid", "seeds"])]

    @cached_property
    def budgets(self) -> list[float]:
        return sorted(self.sized["budget"].unique())

    def budget_of(self, flops: float) -> float:
        """The budget nearest to `flops`, in the log."""
        return min(self.budgets, key=lambda budget: abs(math.log(budget / flops)))

    @cached_property
    def passes(self) -> pd.Series | None:
        """How many times each run read the training text; None if the study does not record its length."""
        tokens = self.study.train_tokens
        return self.runs["tokens"] / tokens if tokens else None

    def cell(self, method: str, budget: float) -> pd.DataFrame:
        """The sized runs of a method at a budget."""
        own = self.sized
        return own[(own["method"] == method) & (own["budget"] == budget)]

    def best(self, method: str, budget: float) -> pd.DataFrame:
        """The runs of the best shape: the one of lowest loss on seed 0, which was run with more seeds."""
        own = self.cell(method, budget)
        first = own[own["seed"] == own["seed"].min()]
        if first.empty:
            return own
        shape = first.loc[first["loss"].idxmin(), ["n_layers", "d_model"]]
        return own[(own["n_layers"] == shape["n_layers"]) & (own["d_model"] == shape["d_model"])].sort_values("seed")

    def group(self, budget: float) -> Group:
        """The best shape of every method at a budget, as a comparison, for figures of single runs."""
        methods = []
        for name in self.methods:
            runs = [self.files[run] for run in self.best(name, budget)["id"]]
            if runs:
                methods.append(Method(title(name), runs))
        return Group(self.study.name, methods)


def read_study(folder: Path) -> Results:
    """Read `isoflop.json` and every record it names.

    A record that is missing, broken, diverged or failed its audit is named in `problems`. Raises UserError if nothing
    is left, or if the study has not finished.
    """
    study = load_study(folder / FILE)
    if study.missing:
        raise UserError(
            f"{folder / FILE} belongs to an unfinished study: {study.missing} runs are missing. Resume: {study.command}"
        )
    rows: list[dict[str, Any]] = []
    files, problems = {}, []
    for stage in Stages.model_fields:
        for run_id in getattr(study.stages, stage):
            try:
                record = load_record(folder / run_id / "record.json")
            except UserError as error:
                problems.append(str(error).replace(f"{folder}/", ""))
                continue
            why = exclusion(record)
            if why is not None or record.quality is None:
                problems.append(f"{run_id} is excluded: {why or 'its validation loss was not measured'}.")
                continue
            files[run_id], unread = read_files(record, folder / run_id)
            problems += [message.replace(f"{folder}/", "") for _, message in unread]
            rows.append({"stage": stage, **_row(record)})
    if not any(row["stage"] == "grid" for row in rows):
        raise UserError(f"{folder / FILE} names no run of the grid that can be read; run the study again.")
    decode, earlier = _decode(folder.parent / "decode" / TARGETS), load_earlier(folder / EARLIER)
    return Results(study, pd.DataFrame(rows), files, problems, decode, earlier)


def _row(record: Record) -> dict[str, Any]:
    assert record.quality is not None
    depth = (record.config.get("method") or {}).get("depth") or {}
    return {
        "id": record.run.id,
        "method": str(MethodId(record.method, record.variant)),
        "budget": float(record.config["train"]["budget_flops"]),
        "n_layers": record.model.n_layers,
        "d_model": record.model.d_model,
        "seed": record.run.seed,
        "lr": record.training.lr,
        "lr_at_128": record.config["train"]["lr_at_128"],
        "capacity": depth.get("capacity"),
        "router": depth.get("router"),
        "causal": depth.get("causal"),
        "params_total": record.model.params_total,
        "params_active": record.model.params_active,
        "forward_flops": record.flops.forward_per_token,
        "tokens": record.training.tokens,
        "steps": record.training.steps,
        "flops": record.flops.train_total,
        "loss": record.quality.val_loss_nats,
        "loss_noncausal": record.quality.val_loss_nats_noncausal,
        "accuracy": record.routing.predictor_accuracy if record.routing else None,
        "processed": record.routing.fraction_processed if record.routing else None,
        "joules": record.energy.joules_per_token * record.training.tokens if record.energy else None,
    }


def _decode(path: Path) -> Targets | None:
    try:
        return load_targets(path) if path.exists() else None
    except UserError:
        return None
