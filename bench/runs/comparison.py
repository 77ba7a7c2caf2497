"""A comparison: each method and its dense baseline, measured, reported and summed up in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from bench.config.identity import MethodId, comparison_name, config_hash
from bench.config.schema import RunConfig
from bench.data import Corpus, prepare
from bench.errors import UserError
from bench.evaluate import check_tasks, excluded_tasks, load_tasks
from bench.flops.trace import Traced
from bench.measure.machine import Machine, available_bytes, make_machine, set_threads
from bench.records.isoflop import Packing
from bench.records.record import Record
from bench.runs.memory import check_memory
from bench.runs.pool import Job, Pool
from bench.runs.prepared import PreparedRun, finished, prepare_run
from bench.runs.run import check_baseline, count_flops, refuse_leaks, time_run, to_be_timed, train_once


def compare(configs: Sequence[RunConfig], commands: Sequence[str]) -> bool:
    """Run every configuration and its dense baseline, with each of its seeds; write the reports; print tables and
    verdicts. Everything is trained, on a CPU as many runs at once as there are threads, before anything is timed.

    Finished runs are reused. Returns whether every run finished. Raises UserError for a mistake in any of them before
    anything is trained. If a run fails later, the others are reported first.
    """
    own = [
        (replace(config, seed=config.seed + number, seeds=1), command)
        for config, command in zip(configs, commands, strict=True)
        for number in range(config.seeds)
    ]
    prepared = [(prepare_run(config), command) for config, command in own]
    runs = {  # folder -> run and command, each baseline before its methods
        each.folder: (each, command)
        for run, command in prepared
        for each in ((run.baseline, run) if run.baseline else (run,))
    }
    records = {folder: finished(run.config) for folder, (run, _) in runs.items()}
    for evaluate in {repr(config.evaluate): config.evaluate for config, _ in own}.values():
        check_tasks(evaluate)
        if None in records.values():
            load_tasks(evaluate)
    shared = _Shared()
    jobs = _jobs([each for folder, each in runs.items() if records[folder] is None], shared)
    for folder, record in records.items():
        if record is not None:
            print(f"{folder} is finished and is reused.")
    for run, _ in prepared:
        check_baseline(run, records[run.baseline.folder] if run.baseline else None)
    try:
        _train(jobs, shared)
        ended = [_timed(run, shared) for run, _ in runs.values()]
    except Exception:
        _report([config for config, _ in own if finished(config)])
        raise
    for record in ended:
        if record.run.message:
            print(f"{record.run.id}: {record.run.message}.")
    _report([config for config, _ in own])
    return all(record.run.status == "finished" for record in ended)


def _jobs(due: Sequence[tuple[PreparedRun, str]], shared: _Shared) -> list[Job]:
    """The runs to train, for the vocabulary of their text. Refused here: whole steps that miss the budget, too little
    memory, FLOP counts that disagree, and leaks.
    """
    jobs, counted = [], dict[str, Traced]()
    for run, command in due:
        corpus, machine = shared.corpus(run.config), shared.machine(run.config)
        planned = run.with_vocabulary(corpus.tokenizer.vocab_size)
        planned.check_whole_steps()
        check_memory(planned, available_bytes(machine.device))
        alike = config_hash(replace(run.config, seed=0))  # seeds have equal counts
        if alike not in counted:
            counted[alike] = count_flops(planned, corpus, machine)
            refuse_leaks(planned, corpus, machine)
            passes = planned.plan.tokens / corpus.train_tokens
            if passes > 1:
                print(
                    f"{MethodId.of(run.config.method).title} reads the {corpus.train_tokens:,} training tokens "
                    f"{passes:.1f} times."
                )
        jobs.append(Job(run.config, planned.plan, command, counted[alike]))
    return jobs


def _train(jobs: Sequence[Job], shared: _Shared) -> None:
    workers = _workers(jobs, shared)
    if workers == 1:
        for job in jobs:
            corpus, machine = shared.corpus(job.config), shared.machine(job.config)
            run = prepare_run(job.config, corpus.tokenizer.vocab_size)
            train_once(run, corpus, machine, job.command, counted=job.counted)
        return
    packing = Packing(workers=workers, threads=1, flops_per_second=0.0)
    total = sum(job.flops for job in jobs)
    with Pool(packing, shared.machine(jobs[0].config), "", (total, 0.0), None) as pool:
        pool.train(lambda: [job for job in jobs if finished(job.config) is None])


def _workers(jobs: Sequence[Job], shared: _Shared) -> int:
    """Runs trained at once: several on a CPU, whose cores one small model does not fill, if none waits for another."""
    machines = [shared.machine(job.config) for job in jobs]
    if any(machine != machines[0] or machine.device.type != "cpu" for machine in machines):
        return 1
    if not jobs or any(job.config.contract.name == "wall_clock" for job in jobs):
        return 1
    return min(len(jobs), torch.get_num_threads())


def _timed(run: PreparedRun, shared: _Shared) -> Record:
    """The record of a run that has ended, with its speed."""
    record = finished(run.config)
    if record is None:
        raise UserError(f"{run.folder}: the record is gone. Give the command again.")
    if not to_be_timed(run, record):
        return record
    corpus = shared.corpus(run.config)
    with tqdm(bar_format=f"timing {run.title}", leave=False):  # drawn once: nothing else may run meanwhile
        return time_run(run.with_vocabulary(corpus.tokenizer.vocab_size), corpus, shared.machine(run.config))


class _Shared:
    """What runs of equal settings share in a sweep: the text, and the machine as it was measured."""

    def __init__(self) -> None:
        self.corpora: dict[str, Corpus] = {}
        self.machines: dict[tuple[str, str, int | None], Machine] = {}

    def corpus(self, config: RunConfig) -> Corpus:
        """The text of `config`; the first time, print the tasks that it yields too few items for."""
        key = repr(config.data)
        if key not in self.corpora:
            self.corpora[key] = prepare(config.data)
            for sentence in excluded_tasks(self.corpora[key], config.evaluate):
                print(sentence)
        return self.corpora[key]

    def machine(self, config: RunConfig) -> Machine:
        """The machine of `config`, with its threads set."""
        key = config.train.device, config.train.dtype, config.train.threads
        if key not in self.machines:
            self.machines[key] = make_machine(config)
        set_threads(config.train)
        return self.machines[key]


def _report(configs: Sequence[RunConfig]) -> None:
    from bench.report.comparison import summary_table, verdicts, write_report  # slow to import
    from bench.report.load import read_results

    places = dict.fromkeys((config.results_dir, config.reports_dir, comparison_name(config)) for config in configs)
    for results, reports, name in places:
        comparisons, _ = read_results(Path(results) / name)
        for comparison in comparisons:
            stored = [run.record for group in comparison.groups for run in group.runs]
            print(f"\n{summary_table(stored, Path(results))}\n")
            for sentence in verdicts(stored, Path(results)):
                print(sentence)
            print(f"\nreport: {write_report(comparison, Path(reports))}")
