"""One run, top to bottom: match -> data -> train -> measure -> evaluate -> record."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace

from bench.config.identity import comparison_hash, comparison_name
from bench.data import Batches, Corpus
from bench.data.tokenizer import SubwordTokenizer
from bench.errors import UserError
from bench.flops.match import Plan
from bench.flops.trace import Traced, check_counts
from bench.formats import now
from bench.measure.machine import Machine, environment, git_commit
from bench.measure.resources import joules
from bench.methods import build_model
from bench.methods.depth import calibrate
from bench.methods.registry import layer_count
from bench.model.block import feed_forward_width
from bench.records.files import make_folder
from bench.records.record import Energy, Flops, Model, Record, Run, Text, Training
from bench.runs.assess import assess, assess_memory, assess_speed, validation_rows
from bench.runs.load import WEIGHTS
from bench.runs.prepared import PreparedRun, again, finished
from bench.train import checkpoint
from bench.train.log import Show, terminal_bar
from bench.train.loop import Budget, Trained, train
from bench.train.step import Trainee

_CALIBRATION_ROWS = 64


def count_flops(prepared: PreparedRun, corpus: Corpus, machine: Machine) -> Traced:
    """The three FLOP counts of the first batch of a run; raises UserError if they disagree."""
    prepared = prepared.with_vocabulary(corpus.tokenizer.vocab_size)
    config, shape = prepared.config, prepared.plan.model
    model = build_model(shape, config.method, corpus.tokenizer.vocab_size, config.seed).to(machine.device)
    inputs, _ = Batches(corpus.train, shape.context, config.train.batch_size, config.seed).at(0)
    return check_counts(prepared.title, model, inputs.to(machine.device))


def run(
    prepared: PreparedRun,
    corpus: Corpus,
    machine: Machine,
    command: str,
    show: Show | None = None,
    alone: bool = True,
    counted: Traced | None = None,
) -> Record:
    """Train and measure what is prepared, for the vocabulary of `corpus`; leaves a record in its folder and returns it.

    `show` is called after every step; without it a bar in the terminal shows them. `alone`: no other run uses the
    device at the same time. Energy is recorded for such runs only, because the device's counter cannot separate runs,
    and only if one session trained the run from its first step to its last.

    Under `wall_clock` the dense baseline must have been run before. If it has been, the method's steps are timed
    against the baseline's. Raises Interrupted after a signal, and UserError for a mistake that the user can correct.
    """
    config, solved, folder = prepared.config, prepared.plan, prepared.folder
    baseline = None if prepared.baseline is None else finished(prepared.baseline.config)
    _check_baseline(prepared, baseline)
    batches = Batches(corpus.train, solved.model.context, config.train.batch_size, config.seed)
    trainee = Trainee.of(config, solved.model, prepared.vocab_size, machine.device)
    inputs, targets = batches.at(0)
    counted = counted or check_counts(prepared.title, trainee.model, inputs.to(machine.device))
    make_folder(folder)
    owner = checkpoint.Owner(prepared.hash, corpus.fingerprint)
    metered = alone and not any(folder.glob("checkpoint*"))
    started_joules = joules(machine.device) if metered else None
    with terminal_bar(prepared.title, machine.matmul_flops) if show is None else nullcontext(show) as watcher:
        trained = train(trainee, batches, solved, _budget(prepared, baseline), folder, owner, watcher)
    used_joules = _used(started_joules, joules(machine.device)) if metered else None
    record = _record(prepared, counted, trained, trainee, corpus, machine, command)
    if trained.diverged is None:
        calibrate(trainee.model, validation_rows(corpus, trainee.model, _CALIBRATION_ROWS, last=True))
        checkpoint.save_tensors(checkpoint.weights(trainee.model), folder / WEIGHTS)
        if isinstance(corpus.tokenizer, SubwordTokenizer):
            corpus.tokenizer.save(folder)
        assess(record, config, corpus, trainee.model, folder)
        if config.evaluate.timing_steps and record.run.status != "diverged":
            assess_memory(record, trainee, (inputs, targets))
            trained_baseline = _trained_baseline(prepared, machine)
            assess_speed(record, solved, trainee, trained_baseline, corpus, machine, (inputs, targets))
        if used_joules is not None:
            record.energy = Energy(joules_per_token=used_joules / trained.tokens)
    record.save(folder / "record.json")
    checkpoint.remove(folder)
    return record


def _check_baseline(prepared: PreparedRun, record: Record | None) -> None:
    """Before anything is trained, warn if a finished baseline cannot be compared with or timed."""
    if prepared.baseline is None or record is None or not prepared.config.evaluate.timing_steps:
        return
    folder = prepared.baseline.folder
    if (folder / WEIGHTS).exists():
        return
    if record.run.status == "diverged":
        print(
            f"{folder} diverged, so {prepared.title} has no baseline to compare with; lower the learning rate of both."
        )
    else:
        print(
            f"{folder} holds no {WEIGHTS}, so {prepared.title} will have no speed-up over it. "
            f"To measure one, stop here, {again(folder)}, and give the command again."
        )


def _trained_baseline(prepared: PreparedRun, machine: Machine) -> tuple[Plan, Trainee] | None:
    """The finished dense baseline, to be timed with its method; None if it has no weights, or is the run itself."""
    baseline = prepared.baseline
    if baseline is None or not (path := baseline.folder / WEIGHTS).exists():
        return None
    trainee = Trainee.of(baseline.config, baseline.plan.model, baseline.vocab_size, machine.device)
    checkpoint.load_weights(trainee.model, checkpoint.read_weights(path), path)
    return baseline.plan, trainee


def _budget(prepared: PreparedRun, baseline: Record | None) -> Budget:
    """Planned FLOPs; under wall_clock, the seconds that the finished baseline trained for."""
    flops = prepared.plan.budget_flops
    if prepared.config.contract.name != "wall_clock" or prepared.baseline is None:
        return Budget(flops)
    if baseline is None:
        raise UserError("contract=wall_clock needs the dense baseline's training time first: run +method=dense.")
    return Budget(flops, seconds=baseline.training.seconds)


def _used(before: float | None, after: float | None) -> float | None:
    return after - before if before is not None and after is not None and after >= before else None


def _record(
    prepared: PreparedRun,
    counted: Traced,
    trained: Trained,
    trainee: Trainee,
    corpus: Corpus,
    machine: Machine,
    command: str,
) -> Record:
    """The record, as far as training determines it."""
    config, solved = prepared.config, prepared.plan
    shape, counts = solved.model, solved.count
    diverged = trained.diverged is not None
    return Record(
        run=Run(
            id=prepared.folder.name,
            name=comparison_name(config),
            created=now(),
            git_commit=git_commit(),
            config_hash=prepared.hash,
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
            vocab_size=prepared.vocab_size,
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
        corpus=Text(
            train_tokens=corpus.train_tokens,
            validation_documents=len(corpus.validation),
            validation_copies=corpus.copies.validation,
            training_copies=corpus.copies.training,
        ),
        training=Training(
            tokens=trained.tokens,
            passes=trained.tokens / corpus.train_tokens,
            steps=trained.steps,
            seconds=trained.seconds,
            final_loss=trained.final_loss,
            lr=trainee.peak_lr,
            lr_rule=trainee.lr_rule,
            dtype=str(trainee.dtype).removeprefix("torch."),
        ),
    )
