"""An isoFLOP study, top to bottom: plan, learning rates, sizes, seeds and ablations, step times, tokens, report.

Every run is one of `bench.runs.run`, under the study's name. Finished runs, loose or packed, are not run again, and
stopped ones resume from their checkpoints.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from bench.config.identity import run_folder
from bench.config.schema import RunConfig
from bench.data import Corpus, prepare
from bench.formats import now
from bench.isoflop.run.grid import Grid, Loss, Sizes, best_of
from bench.isoflop.run.packing import measure_packing
from bench.isoflop.run.plan import describe, planned_memory
from bench.isoflop.run.scheduler import Ended, schedule
from bench.isoflop.run.session import Session
from bench.isoflop.run.step_times import time_steps
from bench.isoflop.run.token_study import study_tokens
from bench.measure.machine import Machine, environment, git_commit, make_machine
from bench.records.files import make_folder
from bench.records.isoflop import FILE, Packing, Stages, Study, load_study
from bench.records.record import load_record
from bench.runs.load import WEIGHTS
from bench.runs.pool import Job, Pool
from bench.runs.prepared import prepare_run
from bench.runs.run import count_flops
from bench.train.loop import SNAPSHOTS


def run(config: RunConfig, command: str) -> int:
    """Run what is missing; returns the exit status.

    Raises Interrupted after a signal, or after `study.grid.minutes`, with checkpoints written and measurements saved; a
    measurement in progress is finished first.
    """
    started = time.monotonic()
    grid = Grid(config)
    machine = make_machine(config)
    earlier = _earlier(config)
    print(describe(grid, machine, _first_packing(grid, earlier)), flush=True)
    if config.dry_run:
        return 0
    corpus = prepare(config.data)
    if earlier is None or earlier.missing:
        _check_counts(grid, corpus, machine)
    folder = make_folder(_place(config))
    study = _opened(folder, earlier, grid, machine, command, corpus)
    session = Session(study, folder, grid.values.minutes, earlier, started)
    largest = max(size for size, _ in planned_memory(grid))
    measure_packing(session, _typical(grid), largest, machine, grid.values.workers)
    ended = Ended()
    sizes = _train(session, grid, machine, ended)
    to_time = {(name, grid.rung(job)): job for (name, _), jobs in sizes.items() for job in jobs}
    time_steps(session, to_time, corpus, machine, grid.values.timing_rounds)
    _tokens(session, grid, sizes, ended.loss, corpus)
    session.save()
    print(f"\n{folder}: all runs are done. {study.shares(_recorded_seconds(study, folder))}.")
    _report(folder, Path(config.reports_dir))
    return 0


def _place(config: RunConfig) -> Path:
    assert config.study is not None
    return Path(config.results_dir) / config.study.name


def _earlier(config: RunConfig) -> Study | None:
    """The study as earlier sessions left it; None before the first."""
    path = _place(config) / FILE
    return load_study(path) if path.exists() else None


def _first_packing(grid: Grid, earlier: Study | None) -> Packing | None:
    """The measured packing that runs will have: the requested number of workers, or the best; None: not measured."""
    measured = earlier.packings if earlier else []
    asked = grid.values.workers
    return next((packing for packing in measured if asked in (None, packing.workers)), None)


def _opened(folder: Path, earlier: Study | None, grid: Grid, machine: Machine, command: str, corpus: Corpus) -> Study:
    """The study as it is now, with the measurements of earlier sessions."""
    study = Study(
        name=folder.name,
        created=now(),
        git_commit=git_commit(),
        command=command,
        environment=environment(machine.device),
        methods=list(grid.methods),
        budgets=grid.budgets,
        train_tokens=corpus.train_tokens,
        grid=asdict(grid.values),
    )
    if earlier is not None:
        study.packings, study.timings, study.tokens = earlier.packings, earlier.timings, earlier.tokens
        study.training_seconds, study.worker_seconds = earlier.training_seconds, earlier.worker_seconds
    return study


def _check_counts(grid: Grid, corpus: Corpus, machine: Machine) -> None:
    """Before the first run: raise UserError for a method whose three FLOP counts disagree, at its smallest size."""
    budget = grid.budgets[0]
    for name, method in grid.methods.items():
        job = grid.job(method, grid.window(name, budget)[0], budget, 0, grid.config.train.lr_at_128)
        count_flops(prepare_run(job.config, corpus.tokenizer.vocab_size), corpus, machine)


def _typical(grid: Grid) -> list[Job]:
    """Runs of the middle budget, of the first and the last method."""
    budget = grid.budgets[len(grid.budgets) // 2]
    names = dict.fromkeys((next(iter(grid.methods)), next(reversed(grid.methods))))
    windows = {name: grid.window(name, budget) for name in names}
    lr = grid.config.train.lr_at_128
    return [grid.job(grid.methods[name], window[len(window) // 2], budget, 0, lr) for name, window in windows.items()]


def _train(session: Session, grid: Grid, machine: Machine, ended: Ended) -> Sizes:
    """Train all runs, each as soon as those it depends on have ended; returns the sizes that were run."""
    study = session.study
    planned = sum(flops for _, flops in grid.planned_flops().values())
    flops = (planned, schedule(grid, ended).ended_flops)
    started, before = time.monotonic(), (study.training_seconds, study.worker_seconds)

    def save() -> None:
        """Whenever a run ends, since a killed process cannot save."""
        study.training_seconds = before[0] + pool.training_seconds
        study.worker_seconds = before[1] + (time.monotonic() - started) * study.packings[0].workers
        session.save()

    def missing() -> list[Job]:
        now = schedule(grid, ended)
        study.learning_rates = now.learning_rates
        ended_runs = {stage: [run_folder(job.config).name for job in jobs] for stage, jobs in now.stages.items()}
        study.stages = Stages(**ended_runs)
        study.missing = len(now.missing)
        save()
        return now.missing

    with Pool(study.packings[0], machine, study.command, flops, session.deadline) as pool:
        try:
            pool.train(missing)
        finally:
            save()
    return schedule(grid, ended).sizes


def _tokens(session: Session, grid: Grid, sizes: Sizes, loss: Loss, corpus: Corpus) -> None:
    """Study the best shapes at the largest budget. The baseline has the depth-routed shape, if such a run finished."""
    tokens = session.study.tokens
    budget, earlier = grid.budgets[-1], tokens.runs if tokens else {}
    best = {name: best_of(sizes[name, budget], loss) for name in grid.methods}
    others = [name for name in grid.methods if name != "dense"]
    seeds = {name: _seed_to_study(best[name], grid.values.seeds, loss, earlier.get(name)) for name in others}
    runs = {name: folder for name, folder in seeds.items() if folder is not None}
    more = {name: [folder for folder in _successful(best[name], grid.values.seeds, loss) if folder != runs[name]]
            for name in runs}  # fmt: skip
    routed = next((best[name] for name in grid.methods if best[name].config.method.depth), best["dense"])
    same_shape = [job for job in sizes["dense", budget] if job.config.model == routed.config.model]
    successful = [job for job in same_shape if loss(job.config) is not None]
    baseline = run_folder((successful or [best["dense"]])[0].config)
    study_tokens(session, runs, more, baseline, corpus, grid.config.evaluate)


def _seed_to_study(job: Job, seeds: int, loss: Loss, earlier: str | None) -> Path | None:
    """The folder of one successful seed that has weights or was studied earlier; None if there is none.

    A seed that was studied earlier stays. Otherwise it is the first with snapshots, which only later seeds have.
    """
    whole = [
        folder for folder in _successful(job, seeds, loss) if folder.name == earlier or (folder / WEIGHTS).exists()
    ]
    return max(whole, key=lambda folder: (folder.name == earlier, (folder / SNAPSHOTS).exists()), default=None)


def _successful(job: Job, seeds: int, loss: Loss) -> list[Path]:
    """The folders of its seeds that finished, seed 0 last."""
    configs = [replace(job.config, seed=seed) for seed in (*range(1, seeds), 0)]
    return [run_folder(config) for config in configs if loss(config) is not None]


def _recorded_seconds(study: Study, folder: Path) -> float:
    """Seconds of training steps that the records of the study's runs hold, each run once."""
    runs = {run for stage in Stages.model_fields for run in getattr(study.stages, stage)}
    return sum(load_record(folder / run / "record.json").training.seconds for run in runs)


def _report(folder: Path, reports: Path) -> None:
    from bench.isoflop.pages import write_isoflop  # draws: slow to import, and not needed until here

    print(f"report: {write_isoflop(folder, reports)}")
