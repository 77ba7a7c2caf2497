"""One run, top to bottom: match -> data -> train -> measure -> evaluate -> record."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from bench.config.identity import comparison_hash, comparison_name
from bench.config.plugins import module_of
from bench.data import Batches, Corpus
from bench.data.progress import timed
from bench.data.tokenizer import SubwordTokenizer
from bench.errors import UserError, out_of_memory
from bench.flops.match import SAME_TOKENS, Plan
from bench.flops.trace import Traced, check_counts
from bench.formats import now
from bench.measure.audit import audit
from bench.measure.machine import Machine, environment, git_commit
from bench.measure.resources import joules
from bench.methods import build_model
from bench.methods.depth import calibrate
from bench.methods.registry import check_shapes, layer_count, own_code
from bench.model import Transformer
from bench.model.block import feed_forward_width
from bench.records.files import make_folder
from bench.records.lease import lease
from bench.records.record import Energy, Flops, Model, Record, Run, Text, Training, load_record
from bench.runs.assess import assess, assess_larger_speed, assess_memory, assess_speed, validation_rows
from bench.runs.load import WEIGHTS
from bench.runs.prepared import PreparedRun, again, finished
from bench.train import checkpoint
from bench.train.log import Show, terminal_bar
from bench.train.loop import Budget, Trained, train
from bench.train.step import Trainee

_CALIBRATION_ROWS = 64
_FEW_TOKENS = 32


def count_flops(prepared: PreparedRun, corpus: Corpus, machine: Machine) -> Traced:
    """The FLOP counts of the first rows of a run; raises UserError if they disagree."""
    model, inputs = _first_step(prepared, corpus, machine)
    with own_code(prepared.config.method):
        if module_of(prepared.config.method.name) is not None:
            check_shapes(model, prepared.config.method, inputs[:1])
        return check_counts(prepared.title, model, inputs)


def refuse_leaks(prepared: PreparedRun, corpus: Corpus, machine: Machine) -> None:
    """Audit the untrained model on a few tokens; raises UserError if its logits depend on what they must not.

    An untrained router may choose no token, so the audit of the trained model is the one that counts.
    """
    model, inputs = _first_step(prepared, corpus, machine)
    with own_code(prepared.config.method):
        failure = audit(model, inputs[:1, :_FEW_TOKENS]).failure
    if failure is not None:
        raise UserError(
            f"{prepared.title} leaks: before training, {failure}. Logits may depend on a row's own tokens up to "
            "theirs, and on nothing else: not on later tokens, the row's length, padding or other rows."
        )


def _first_step(prepared: PreparedRun, corpus: Corpus, machine: Machine) -> tuple[Transformer, Tensor]:
    """The untrained model of a run and the inputs of its first step."""
    prepared = prepared.with_vocabulary(corpus.tokenizer.vocab_size)
    config, shape = prepared.config, prepared.plan.model
    model = build_model(shape, config.method, corpus.tokenizer.vocab_size, config.seed).to(machine.device)
    inputs, _ = Batches(corpus.train, shape.context, config.train.batch_size, config.seed).at(0)
    return model, inputs.to(machine.device)


def train_once(
    prepared: PreparedRun,
    corpus: Corpus,
    machine: Machine,
    command: str,
    show: Show | None = None,
    alone: bool = True,
    counted: Traced | None = None,
) -> Record:
    """`run`, or the record of another process that was at this very run."""

    def waiting(holder: str) -> None:
        told = f"{prepared.folder}: {holder} is training this run. Waiting for it; to train elsewhere, set name=."
        print(told, flush=True)

    with lease(prepared.folder, waiting):
        record = finished(prepared.config)  # by now
        if record is not None:
            return record
        return run(prepared, corpus, machine, command, show, alone, counted)


def run(
    prepared: PreparedRun,
    corpus: Corpus,
    machine: Machine,
    command: str,
    show: Show | None = None,
    alone: bool = True,
    counted: Traced | None = None,
) -> Record:
    """Train what is prepared, for the vocabulary of `corpus`, and measure its quality; leaves a record in its folder
    and returns it. `time_run` adds the speed.

    `show` is called after every step; without it a bar in the terminal shows them. `alone`: no other run uses the
    device at the same time. Energy is recorded for such runs only, because the device's counter cannot separate runs,
    and only if one session trained the run from its first step to its last.

    Under `wall_clock` the dense baseline must have been run before. Raises Interrupted after a signal, and UserError
    for a mistake that the user can correct.
    """
    config, solved, folder = prepared.config, prepared.plan, prepared.folder
    baseline = None if prepared.baseline is None else finished(prepared.baseline.config)
    batches = Batches(corpus.train, solved.model.context, config.train.batch_size, config.seed)
    trainee = Trainee.of(config, solved.model, prepared.vocab_size, machine.device)
    counted = counted or check_counts(prepared.title, trainee.model, batches.at(0)[0].to(machine.device))
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
        with timed(f"measuring {prepared.title}") if show is None else nullcontext():
            assess(record, config, corpus, trainee.model, folder)
        if used_joules is not None:
            record.energy = Energy(joules_per_token=used_joules / trained.tokens)
    _save(record, folder / "record.json")
    checkpoint.remove(folder)
    return record


def _save(record: Record, path: Path) -> None:
    """Write the record and read it back: one that no report could read is no end of a run."""
    record.save(path)
    try:
        load_record(path)
    except UserError as error:
        raise UserError(f"the run ended with figures that cannot be right: {error} It is in no report.") from error


def to_be_timed(prepared: PreparedRun, record: Record) -> bool:
    """Whether the speed of a finished run is wanted, missing, and can still be measured."""
    wanted = prepared.config.evaluate.timing_steps and record.run.status != "diverged"
    return bool(wanted) and record.speed is None and (prepared.folder / WEIGHTS).exists()


def time_run(prepared: PreparedRun, corpus: Corpus, machine: Machine) -> Record:
    """Measure memory and speed of a finished run, against its dense baseline if that has finished too, with nothing
    else running; adds them to its record and returns it. Without enough memory the record stays as it was.
    """
    config, solved, path = prepared.config, prepared.plan, prepared.folder / "record.json"
    record = load_record(path)
    batch = Batches(corpus.train, solved.model.context, config.train.batch_size, config.seed).at(0)
    try:
        trainee = _trained(prepared, machine)
        assess_memory(record, trainee, batch)
        assess_speed(record, solved, trainee, _trained_baseline(prepared, machine), corpus, machine, batch)
        assess_larger_speed(record, config, corpus, machine)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error) is None:
            raise
        print(f"{prepared.folder}: speed is not measured, because there is not enough memory. The record is kept.")
        return load_record(path)
    record.environment = environment(machine.device)  # with the threads that were timed
    _save(record, path)
    return record


def check_baseline(prepared: PreparedRun, record: Record | None) -> None:
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
    if baseline is None or not (baseline.folder / WEIGHTS).exists():
        return None
    return baseline.plan, _trained(baseline, machine)


def _trained(prepared: PreparedRun, machine: Machine) -> Trainee:
    trainee = Trainee.of(prepared.config, prepared.plan.model, prepared.vocab_size, machine.device)
    path = prepared.folder / WEIGHTS
    checkpoint.load_weights(trainee.model, checkpoint.read_weights(path), path)
    return trainee


def _budget(prepared: PreparedRun, baseline: Record | None) -> Budget:
    """Planned FLOPs; the baseline's steps where tokens are equal; under wall_clock, the seconds that the finished
    baseline trained for.
    """
    flops = prepared.plan.budget_flops
    if prepared.config.contract.name in SAME_TOKENS:
        return Budget(flops, steps=prepared.plan.steps)
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
            status="diverged" if trained.diverged else "finished",
            message=trained.diverged,
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
            backward_per_token=counts.backward,
            train_per_token=counts.train,
            train_total=trained.flops,
            forward_analytic=counted.analytic,
            forward_fvcore=counted.fvcore,
            forward_torch=counted.torch,
            train_analytic=counted.train_analytic,
            train_torch=counted.train_torch,
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
            tokenizer_loses=corpus.loses,
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
