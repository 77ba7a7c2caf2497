"""The Python API, available as `bench.load` and `bench.compare`: finished runs as objects and as data frames."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.identity import MethodId
from bench.errors import UserError
from bench.records.exported import load_export
from bench.records.files import check_writable
from bench.records.isoflop import stages_of
from bench.records.packed import RECORD, find_records, is_file
from bench.records.record import Record, RoutingDetail, load_record
from bench.report.load import RunFiles, flatten, read_files

_OF_CURVES = {"grid", "seeds"}  # the stages of an isoFLOP study whose runs make its curves


@dataclass(frozen=True)
class Run:
    """A finished run. Its files are read on first use; each is None if the run wrote none.

    `steps`, `documents` and `routing` raise UserError if the file is damaged. stages: what the run is for in an
    isoFLOP study: rates, grid, seeds, controls; empty elsewhere.
    """

    folder: Path
    record: Record = field(repr=False)
    stages: tuple[str, ...] = ()

    @property
    def method(self) -> MethodId:
        """`str()` is `mode/staged`, `.title` is `MoDE (staged)`."""
        return MethodId(self.record.method, self.record.variant)

    @property
    def steps(self) -> pd.DataFrame | None:
        """A row per logged step: step, tokens, train_flops, seconds, loss (nats/token), lr, grad_norm and more."""
        return self._files.steps

    @property
    def documents(self) -> pd.DataFrame | None:
        """A row per validation document: document, cluster, tokens, bytes, nats (its sum), nats_noncausal."""
        return self._files.documents

    @property
    def routing(self) -> RoutingDetail | None:
        """A passage with each block's decisions, histograms of router weights, expert load."""
        return self._files.routing

    @cached_property
    def _files(self) -> RunFiles:
        files, problems = read_files(self.record, self.folder)
        if problems:
            raise UserError(problems[0][1])
        return files


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """The runs of a folder, in the order of their folders. `problems` names each file that could not be read."""

    path: Path
    runs: list[Run] = field(repr=False)
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, place: Any) -> Any:
        return self.runs[place]

    def frame(self) -> pd.DataFrame:
        """One row per run; the columns are the record's fields in dotted form, NaN or None if a run has none.

        | column | holds |
        | --- | --- |
        | `run.id`, `run.name`, `run.seed`, `run.status` | the run's folder, comparison, seed, how it ended |
        | `method`, `variant`, `contract`, `comparable` | what was run; whether its quality may be compared |
        | `stages` | what the run is for in an isoFLOP study: `rates`, `grid`, `seeds`, `controls`, comma-separated |
        | `config.*` | the whole configuration, for example `config.train.budget_flops` |
        | `model.params_total`, `model.params_active`, `model.n_layers`, `model.d_model` | the model |
        | `flops.train_total`, `flops.forward_per_token` | executed FLOPs of training, planned FLOPs/token |
        | `training.tokens`, `training.seconds`, `training.final_loss` | training; the loss in nats/token |
        | `quality.val_loss_nats`, `quality.val_bpb` | validation loss in nats/token, bits/byte |
        | `routing.predictor_accuracy`, `routing.fraction_processed` | shares, of depth-routed methods |
        | `speed.train_step_seconds.median`, `speed.train_speedup_realised.median` | seconds; a ratio to dense |
        | `speed.decode.1x256.tokens_per_second` | decoding with 1 row and a context of 256 |
        | `memory.peak_bytes`, `energy.joules_per_token` | bytes, joules |
        | `lm_eval.<task>.<metric>` | scores of tasks |
        """
        return pd.DataFrame([_row(run) for run in self.runs])

    def points(self) -> pd.DataFrame:
        """The points for `bench.fit`: method, flops, params, tokens, loss; and params_active, seed.

        One row per comparable run. Of an isoFLOP study only the runs of its curves: the grid and the seeds at optima.
        flops: executed training FLOPs. params: stored parameters. loss: validation loss, nats/token. Raises UserError
        if runs were trained on different text or tokens, because their losses are not comparable.
        """
        _check_one_text(self.runs)
        columns = ["method", "flops", "params", "tokens", "loss", "params_active", "seed"]
        rows = [
            (
                str(run.method), run.record.flops.train_total, run.record.model.params_total,
                run.record.training.tokens, run.record.quality.val_loss_nats, run.record.model.params_active,
                run.record.run.seed,
            )
            for run in self.runs
            if run.record.comparable and run.record.quality and (not run.stages or _OF_CURVES & set(run.stages))
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)


def load(path: str | Path = "results") -> Runs:
    """The finished runs below `path`: a results folder, a comparison, a study or one run, loose or packed.

    Or those of one JSON file that `python -m bench.report RESULTS --export FILE` wrote, without steps and documents.

    A file that cannot be read causes a warning and is named in `problems`. Raises UserError if no run can be read.
    """
    path = Path(path)
    if path.is_file():
        content = load_export(path)
        stages = {run: tuple(own) for run, own in content.stages.items()}
        runs = [Run(path / run.run.name / run.run.id, run, stages.get(run.run.id, ())) for run in content.runs]
        return Runs(path, runs)
    records = [path / RECORD] if is_file(path / RECORD) else find_records(path)
    return _loaded(path, records)


def compare(
    *methods: str,
    seeds: Iterable[int] = (0,),
    overrides: Sequence[str] = (),
    results: str | Path = "results",
    reports: str | Path = "reports",
) -> Runs:
    """Train each method and its dense baseline at matched FLOPs, or reuse finished runs; returns these runs.

    Like `python -m bench -m +method=METHODS seed=SEEDS OVERRIDES`: prints the table and writes the report.

        runs = bench.compare("mod", "mode/staged", seeds=(0, 1), overrides=["train.budget_flops=1e10"])
        runs.frame()[["method", "run.seed", "quality.val_loss_nats"]]

    methods: NAME or NAME/VARIANT. overrides: KEY=VALUE as on the command line. Raises UserError for an invalid value,
    before anything is trained. A run that diverged is returned too: see `record.run.status`.
    """
    from bench.config.compose import configure, expand
    from bench.config.identity import run_folder
    from bench.flops.match import dense_baseline
    from bench.runs.comparison import compare as run_all

    if not methods:
        raise UserError("bench.compare needs a method, for example bench.compare('mod').")
    if isinstance(overrides, str):
        raise UserError(
            f"overrides={overrides!r} is text; give a list of KEY=VALUE, such as ['train.budget_flops=1e10']."
        )
    places = [f"{key}={_quoted(value)}" for key, value in (("results_dir", results), ("reports_dir", reports))]
    words = [
        expand([*method.words, f"seed={seed}", "seeds=1", *overrides, *places], multirun=False)[0]
        for method in map(MethodId.parse, methods)
        for seed in seeds
    ]
    configs = [configure(own) for own in words]
    if any(config.dry_run or config.study for config in configs):
        raise UserError("bench.compare runs comparisons only: leave out dry_run and study, or use `python -m bench`.")
    check_writable(Path(results), "results")
    check_writable(Path(reports), "reports")
    run_all(configs, [shlex.join(["python", "-m", "bench", *own]) for own in words])
    folders = dict.fromkeys(run_folder(each) for config in configs for each in (dense_baseline(config), config))
    return _loaded(Path(results), [folder / RECORD for folder in folders])


def _check_one_text(runs: Sequence[Run]) -> None:
    for told in (_data, lambda run: run.record.run.corpus_fingerprint):  # an older record has no fingerprint
        texts = {text: run for run in runs if (text := told(run)) is not None}
        if len(texts) > 1:
            (one, own), (other, another) = list(texts.items())[:2]
            raise UserError(
                f"{own.folder} and {another.folder} were trained on different text ({one}; {other}), so their losses "
                "are not comparable: load one comparison at a time."
            )


def _data(run: Run) -> str | None:
    """The run's data and tokenizer in words."""
    data = run.record.config.get("data") or {}
    tokenizer = data.get("tokenizer") or {}
    size = f" of {tokenizer['vocab_size']}" if tokenizer.get("kind") == "bpe" else ""
    return f"{data['name']}, {tokenizer.get('kind', 'bytes')}{size}" if "name" in data else None


def _quoted(path: str | Path) -> str:
    """A path as a value on the command line."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _loaded(path: Path, records: Sequence[Path]) -> Runs:
    runs: list[Run] = []
    problems: list[str] = []
    stages: dict[Path, dict[str, tuple[str, ...]]] = {}
    for place in records:
        study, run = place.parent.parent, place.parent.name
        try:
            if study not in stages:
                stages[study] = {}
                stages[study] = stages_of(study)
        except UserError as error:
            problems.append(str(error))
        try:
            runs.append(Run(place.parent, load_record(place), stages[study].get(run, ())))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        raise UserError(problems[0] if problems else f"there is no finished run below {path}.")
    for problem in problems:
        warnings.warn(problem, stacklevel=3)
    return Runs(path, runs, problems)


def _row(run: Run) -> dict[str, Any]:
    fields = run.record.model_dump(exclude_none=True)
    decode = fields.get("speed", {}).pop("decode", [])
    for point in decode:
        fields["speed"].setdefault("decode", {})[f"{point['batch_size']}x{point['context']}"] = point
    own = {"variant": run.record.variant, "comparable": run.record.comparable, "stages": ",".join(run.stages)}
    return flatten(fields) | own
