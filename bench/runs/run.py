"""One run, top to bottom: match -> data -> train -> measure -> evaluate -> record."""

from __future__ import annotations

import datetime
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch

from bench.config.identity import comparison_hash, comparison_name, config_hash, label, run_folder
from bench.config.schema import RunConfig
from bench.data import Batches, Corpus
from bench.data.corpus import corpus_fingerprint
from bench.data.tokenizer import SubwordTokenizer
from bench.errors import UserError
from bench.flops.match import Plan, dense_baseline, plan
from bench.flops.trace import Traced, check_counts
from bench.measure.machine import Machine, environment, git_commit
from bench.measure.resources import joules
from bench.methods import build_model
from bench.methods.depth import calibrate
from bench.methods.registry import layer_count
from bench.model.block import feed_forward_width
from bench.records.record import (
    Energy,
    Flops,
    Model,
    Record,
    Run,
    Training,
    load_record,
    save_record,
)  # fmt: skip
from bench.runs.assess import assess, assess_memory, assess_speed, held_out_rows
from bench.runs.load import WEIGHTS
from bench.train import checkpoint
from bench.train.log import Show, terminal_bar
from bench.train.loop import Budget, Trained, train
from bench.train.step import Trainee

_CALIBRATION_ROWS = 64


def finished(config: RunConfig) -> Record | None:
    """The record of this very configuration, where it has been run to its end.

    Raises UserError where its text has changed since; a record from before that was kept is taken as it is.
    """
    folder = run_folder(config)
    if not (folder / "record.json").exists():
        return None
    record = load_record(folder / "record.json")
    if record.run.config_hash != config_hash(config):
        return None
    if record.run.corpus_fingerprint not in (None, corpus_fingerprint(config.data)):
        raise UserError(
            f"{folder} was trained on other text: what data={config.data.name} reads has changed since. "
            f"Set name= to write elsewhere, or delete {folder} to train it again."
        )
    return record


def count_flops(config: RunConfig, corpus: Corpus, machine: Machine) -> Traced:
    """The three FLOP counts of the first batch of a run; raises UserError where they disagree."""
    solved = plan(config, corpus.tokenizer.vocab_size)
    model = build_model(solved.model, config.method, corpus.tokenizer.vocab_size, config.seed).to(machine.device)
    inputs, _ = Batches(corpus.train, solved.model.context, config.train.batch_size, config.seed).at(0)
    return check_counts(label(config), model, inputs.to(machine.device))


def run(
    config: RunConfig,
    corpus: Corpus,
    machine: Machine,
    command: str,
    show: Show | None = None,
    alone: bool = True,
    counted: Traced | None = None,
) -> Record:
    """Train and measure `config`; leaves a record in its folder and returns it.

    `show` is told of every step; without it a bar in the terminal is. `alone`: no other run uses the device beside
    it; energy is recorded of such runs only, for the device's counter knows nothing of runs, and only where one session
    trained it from its first step to its last. `counted`: what `count_flops` gave, where it has been called.

    The contract may refer to the dense twin: under `wall_clock` the twin must have been run before,
    and where it has been, the method's steps are timed against the twin's.
    Raises Interrupted after a signal, and UserError for what the user can mend.
    """
    _check_twin(config)
    solved = plan(config, corpus.tokenizer.vocab_size)
    batches = Batches(corpus.train, solved.model.context, config.train.batch_size, config.seed)
    trainee = _trainee(config, solved, corpus, machine)
    inputs, targets = batches.at(0)
    counted = counted or check_counts(label(config), trainee.model, inputs.to(machine.device))
    folder = _make_folder(run_folder(config))
    owner = checkpoint.Owner(config_hash(config), corpus.fingerprint)
    metered = alone and not any(folder.glob("checkpoint*"))
    started_joules = joules(machine.device) if metered else None
    with terminal_bar(label(config), machine.matmul_flops) if show is None else nullcontext(show) as watcher:
        trained = train(trainee, batches, solved, _budget(config, solved), folder, owner, watcher)
    used_joules = _used(started_joules, joules(machine.device)) if metered else None
    record = _record(config, solved, counted, trained, trainee, corpus, machine, command)
    if trained.diverged is None:
        calibrate(trainee.model, held_out_rows(corpus, trainee.model, _CALIBRATION_ROWS, last=True))
        checkpoint.save_tensors(checkpoint.weights(trainee.model), folder / WEIGHTS)
        if isinstance(corpus.tokenizer, SubwordTokenizer):
            corpus.tokenizer.save(folder)
        assess(record, config, corpus, trainee.model, folder)
        if config.evaluate.timing_steps and record.run.status != "diverged":
            assess_memory(record, trainee, (inputs, targets))
            assess_speed(record, solved, trainee, _twin(config, corpus, machine), corpus, machine, (inputs, targets))
        if used_joules is not None:
            record.energy = Energy(joules_per_token=used_joules / trained.tokens)
    save_record(record, folder)
    checkpoint.remove(folder)
    return record


def _check_twin(config: RunConfig) -> None:
    """Before anything is trained: refuse a twin of other text, and say where one has no weights to be timed."""
    twin = dense_baseline(config)
    record = None if config.method.name == "dense" else finished(twin)
    folder = run_folder(twin)
    if record is None or not config.evaluate.timing_steps or (folder / WEIGHTS).exists():
        return
    if record.run.status == "diverged":
        print(f"{folder} diverged, so {label(config)} has nothing to be held to; lower the learning rate of both.")
    else:
        print(
            f"{folder} holds no {WEIGHTS}, so {label(config)} will have no speed-up over it. "
            f"For one, stop here, delete {folder} and give the same command again."
        )


def _twin(config: RunConfig, corpus: Corpus, machine: Machine) -> tuple[Plan, Trainee] | None:
    """The finished dense twin, to be timed beside its method; None for the twin itself, or where it has not run."""
    twin = dense_baseline(config)
    path = run_folder(twin) / WEIGHTS
    if config.method.name == "dense" or not path.exists():
        return None
    solved = plan(twin, corpus.tokenizer.vocab_size)
    trainee = _trainee(twin, solved, corpus, machine)
    checkpoint.load_weights(trainee.model, checkpoint.read_weights(path), path)
    return solved, trainee


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Set results_dir to another folder.") from error
    return folder


def _trainee(config: RunConfig, solved: Plan, corpus: Corpus, machine: Machine) -> Trainee:
    model = build_model(solved.model, config.method, corpus.tokenizer.vocab_size, config.seed)
    torch.manual_seed(config.seed)
    return Trainee(model, config.train, solved.model.d_model, machine.device)


def _budget(config: RunConfig, solved: Plan) -> Budget:
    """Planned FLOPs; under wall_clock, the seconds that the finished twin trained for."""
    if config.contract.name != "wall_clock" or config.method.name == "dense":
        return Budget(solved.budget_flops)
    twin = finished(dense_baseline(config))
    if twin is None:
        raise UserError("contract=wall_clock needs the dense twin's training time first: run +method=dense.")
    return Budget(solved.budget_flops, seconds=twin.training.seconds)


def _used(before: float | None, after: float | None) -> float | None:
    return after - before if before is not None and after is not None and after >= before else None


def _record(
    config: RunConfig,
    solved: Plan,
    counted: Traced,
    trained: Trained,
    trainee: Trainee,
    corpus: Corpus,
    machine: Machine,
    command: str,
) -> Record:
    """The record as far as training goes."""
    shape, counts = solved.model, solved.count
    diverged = trained.diverged is not None
    return Record(
        run=Run(
            id=run_folder(config).name,
            name=comparison_name(config),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            git_commit=git_commit(),
            config_hash=config_hash(config),
            comparison_hash=comparison_hash(config),
            corpus_fingerprint=corpus.fingerprint,
            seed=config.seed,
            status="diverged" if diverged else "finished",
            message=f"the loss became NaN at step {trained.diverged}" if diverged else None,
        ),
        environment=environment(machine.device),
        method=config.method.name,
        variant=config.method.variant,
        contract=config.contract.name,
        config=asdict(replace(config, results_dir="results", reports_dir="reports")),
        command=command,
        model=Model(
            params_total=counts.params_total,
            params_active=counts.params_active,
            n_layers=layer_count(shape, config.method),
            d_model=shape.d_model,
            n_heads=shape.n_heads,
            d_ff=feed_forward_width(shape),
            context=shape.context,
            vocab_size=trainee.model.vocab_size,
        ),
        flops=Flops(
            forward_per_token=counts.forward,
            train_per_token=counts.train,
            train_total=trained.flops,
            forward_analytic=counted.analytic,
            forward_fvcore=counted.fvcore,
            forward_torch=counted.torch,
            budget=solved.budget_flops,
            forward_per_token_causal=counts.forward_causal,
            six_n_per_token=counts.six_n,
            moved_bytes_per_token=counts.moved_bytes,
            parts=counts.parts,
        ),
        training=Training(
            tokens=trained.tokens,
            steps=trained.steps,
            seconds=trained.seconds,
            final_loss=trained.final_loss,
            lr=trainee.peak_lr,
            lr_rule=trainee.lr_rule,
            dtype=str(trainee.dtype).removeprefix("torch."),
        ),
    )
