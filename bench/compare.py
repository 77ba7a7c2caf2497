"""A comparison: each method against its dense twin, measured, reported and summed up in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.config import RunConfig, config_hash
from bench.data import Corpus, prepare
from bench.data.tokenizer import vocabulary_size
from bench.flops.match import dense_twin, plan
from bench.machine import Machine, make_machine
from bench.record import Record, find_records, load_record
from bench.run import comparison_name, finished, run, run_folder


def compare(configs: Sequence[RunConfig], commands: Sequence[str]) -> bool:
    """Run every configuration and, before it, its dense twin; write the reports; print tables and verdicts.

    What is finished already is not run again. Returns whether every run came to its end.
    """
    for config in configs:  # a budget or a shape that cannot work is told before any text is read
        plan(config, vocabulary_size(config.data.tokenizer))
    records: dict[str, Record] = {}
    corpus: Corpus | None = None
    machine: Machine | None = None
    for config, command in zip(configs, commands, strict=True):
        for wanted in (dense_twin(config), config):
            if config_hash(wanted) in records:
                continue
            record = finished(wanted)
            if record is not None:
                print(f"{run_folder(wanted)} is finished already and is used as it is.")
            else:
                corpus = corpus or prepare(config.data)
                machine = machine or make_machine(config)
                record = run(wanted, corpus, machine, command)
                if record.run.message:
                    print(f"{record.run.id}: {record.run.message}.")
            records[config_hash(wanted)] = record
    _report(configs)
    return all(record.run.status == "finished" for record in records.values())


def _report(configs: Sequence[RunConfig]) -> None:
    from bench.report import build, summary_table, verdicts  # draws: slow to import, and not needed until here

    first = configs[0]
    results, reports = Path(first.results_dir), Path(first.reports_dir)
    for name in dict.fromkeys(comparison_name(config) for config in configs):
        built = build(results / name, reports)
        stored = [load_record(path) for path in find_records(results / name)]
        print(f"\n{summary_table(stored, results)}\n")
        for sentence in verdicts(stored, results):
            print(sentence)
        for page in built:
            print(f"\nreport: {page}")
