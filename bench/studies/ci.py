"""`+study=ci`: every method, small and on fixed seeds, for `python -m bench.gate` to compare with a baseline.

Everything except speed is deterministic. Speed is sampled in fresh processes, one after another: memory placement
shifts all the steps of a process together, so only processes are independent samples.
"""

from __future__ import annotations

import multiprocessing
import statistics
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from bench.config.compose import configure_method
from bench.config.schema import RunConfig
from bench.data import Batches, Corpus, prepare
from bench.errors import UserError
from bench.flops.match import plan
from bench.formats import now
from bench.measure.machine import Machine, environment, git_commit, make_machine
from bench.measure.speed import fixed_batch, interleave, ratios
from bench.records.ci import FILE, CiStudy
from bench.runs.prepared import prepare_run
from bench.runs.run import count_flops, time_run, to_be_timed
from bench.runs.run import run as run_once
from bench.studies.reference_models import encoder_step
from bench.train import checkpoint
from bench.train.step import Trainee

_SPAWN = multiprocessing.get_context("spawn")


def run(config: RunConfig, command: str) -> int:
    """Train and measure every method from scratch, time their steps, write `ci.json`; returns 0, because the gate
    decides.

    A run that failed is printed and marked in its record. Raises UserError if the folder already holds a study, which
    may be the baseline.
    """
    assert config.study is not None
    folder = Path(config.results_dir) / config.study.name
    if (folder / FILE).exists():
        raise UserError(f"{folder} already holds a ci study. Set results_dir to another folder, or delete it.")
    configs = {name: _configured(config, name) for name in config.study.methods}
    corpus, machine = prepare(config.data), make_machine(config)
    prepared = {name: prepare_run(own, corpus.tokenizer.vocab_size) for name, own in configs.items()}
    counted = {name: count_flops(each, corpus, machine) for name, each in prepared.items()}  # refused before training
    records = {}
    for name, each in prepared.items():
        checkpoint.remove(each.folder)  # of a study that was stopped, under whatever code
        records[name] = run_once(each, corpus, machine, command, counted=counted[name])
    for name, each in prepared.items():
        if to_be_timed(each, records[name]):
            records[name] = time_run(each, corpus, machine)
    speed, encoder_seconds = _speed(configs, config.study.processes, config.study.rounds)
    study = CiStudy(
        name=config.study.name,
        created=now(),
        git_commit=git_commit(),
        command=command,
        environment=environment(machine.device),
        runs={name: record.run.id for name, record in records.items()},
        speed=speed,
        encoder_seconds=encoder_seconds,
    )
    study.save(folder / FILE)
    wrong = [f"{name}: {record.run.message}" for name, record in records.items() if record.run.status != "finished"]
    print("\n".join([*wrong, f"{folder}: {len(records)} runs. Compare: python -m bench.gate BASELINE {folder}"]))
    return 0


def _configured(config: RunConfig, name: str) -> RunConfig:
    """The configuration of one method's run, given as METHOD or METHOD/VARIANT."""
    assert config.study is not None
    return replace(config, method=configure_method(name), name=config.study.name, study=None)


def _speed(
    configs: dict[str, RunConfig], processes: int, rounds: int
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Method -> figure -> a sample per process; and the seconds of the reference's step in each process."""
    found: dict[str, dict[str, list[float]]] = {}
    encoder_seconds = []
    for number in range(processes):
        print(f"\rtiming steps: process {number + 1} of {processes}", end="", flush=True)
        with _SPAWN.Pool(1) as pool:
            sample, seconds = pool.apply(_sample, (configs, rounds))
        encoder_seconds.append(seconds)
        for name, figures in sample.items():
            for figure, value in figures.items():
                found.setdefault(name, {}).setdefault(figure, []).append(value)
    print()
    return found, encoder_seconds


def _sample(configs: dict[str, RunConfig], rounds: int) -> tuple[dict[str, dict[str, float]], float]:
    """Alternating training steps of every method and of the reference: medians of the ratios within a round.

    Also the median seconds of the reference's step.
    """
    first = next(iter(configs.values()))
    corpus, machine = prepare(first.data), make_machine(first)
    batch = [part.to(machine.device) for part in _batch(first, corpus)]
    reference = encoder_step(first.model, corpus.tokenizer.vocab_size, *batch)
    actions = [reference, *(_step(config, corpus, machine) for config in configs.values())]
    of_reference, *steps = interleave(actions, rounds, machine.device)
    seconds = dict(zip(configs, steps, strict=True))
    over_torch = statistics.median(ratios(seconds["dense"], of_reference))
    over_dense = {
        name: {"train_step_over_dense": statistics.median(ratios(own, seconds["dense"]))}
        for name, own in seconds.items()
        if name != "dense"
    }
    return {"dense": {"train_step_over_torch": over_torch}} | over_dense, statistics.median(of_reference)


def _step(config: RunConfig, corpus: Corpus, machine: Machine):
    """A training step on a fixed batch, at learning rate 0."""
    solved = plan(config, corpus.tokenizer.vocab_size)
    trainee = Trainee.of(config, solved.model, corpus.tokenizer.vocab_size, machine.device)
    return fixed_batch(*_batch(config, corpus), trainee.step)


def _batch(config: RunConfig, corpus: Corpus) -> tuple[Tensor, Tensor]:
    return Batches(corpus.train, config.model.context, config.train.batch_size, config.seed).at(0)
