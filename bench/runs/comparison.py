"""A comparison: each method and its dense baseline, measured, reported and summed up in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.config.identity import comparison_name
from bench.config.schema import RunConfig
from bench.data import Corpus, prepare
from bench.evaluate import check_tasks, excluded_tasks, load_tasks
from bench.measure.machine import Machine, make_machine, set_threads
from bench.records.record import Record
from bench.runs.prepared import finished, prepare_run
from bench.runs.run import count_flops, run


def compare(configs: Sequence[RunConfig], commands: Sequence[str]) -> bool:
    """Run every configuration and, before it, its dense baseline; write the reports; print tables and verdicts.

    Finished runs are reused. Returns whether every run finished. Raises UserError for a mistake in any of them before
    anything is trained.
    """
    prepared = [prepare_run(config) for config in configs]
    wanted = [(each.baseline, each) if each.baseline else (each,) for each in prepared]
    records: dict[Path, Record | None] = {}
    for config, pair in zip(configs, wanted, strict=True):
        check_tasks(config.evaluate.tasks)
        records |= {each.folder: finished(each.config) for each in pair if each.folder not in records}
        if None in (records[each.folder] for each in pair):
            load_tasks(config.evaluate.tasks)
    shared, done = _Shared(), dict[Path, Record]()
    due = {each.folder: each for pair in wanted for each in pair if records[each.folder] is None}
    counted = {  # counts that disagree are refused before anything is trained
        folder: count_flops(each, shared.corpus(each.config), shared.machine(each.config))
        for folder, each in due.items()
    }
    for pair, command in zip(wanted, commands, strict=True):
        for each in pair:
            if each.folder in done:
                continue
            record = records[each.folder]
            if record is not None:
                print(f"{each.folder} is finished and is reused.")
            else:
                corpus, machine = shared.corpus(each.config), shared.machine(each.config)
                planned = each.with_vocabulary(corpus.tokenizer.vocab_size)
                passes = planned.plan.tokens / corpus.train_tokens
                if passes > 1:
                    print(f"{planned.title} reads the {corpus.train_tokens:,} training tokens {passes:.1f} times.")
                record = run(planned, corpus, machine, command, counted=counted[each.folder])
            if record.run.message:
                print(f"{record.run.id}: {record.run.message}.")
            done[each.folder] = record
    _report(configs)
    return all(record.run.status == "finished" for record in done.values())


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
