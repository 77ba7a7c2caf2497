"""A comparison: each method against its dense twin, measured, reported and summed up in the terminal."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.config.identity import comparison_name, run_folder
from bench.config.schema import RunConfig
from bench.data import Corpus, prepare
from bench.data.tokenizer import vocabulary_size
from bench.errors import UserError
from bench.evaluate import check_tasks, left_out, load_tasks
from bench.flops.match import dense_baseline, plan
from bench.measure.machine import Machine, make_machine, set_threads
from bench.records.record import Record
from bench.runs.run import count_flops, finished, run


def compare(configs: Sequence[RunConfig], commands: Sequence[str]) -> bool:
    """Run every configuration and, before it, its dense twin; write the reports; print tables and verdicts.

    What has been run already is not run again. Returns whether every run came to its end.
    """
    for config in configs:  # what cannot work is told before anything is trained
        plan(config, vocabulary_size(config.data.tokenizer))
        check_tasks(config.evaluate.tasks)
        _check_writable(Path(config.results_dir), "results_dir")
        _check_writable(Path(config.reports_dir), "reports_dir")
        if None in (finished(dense_baseline(config)), finished(config)):
            load_tasks(config.evaluate.tasks)
    records: dict[Path, Record] = {}
    shared = _Shared()
    due = {run_folder(wanted): wanted for config in configs for wanted in (dense_baseline(config), config)}
    counted = {  # counts that disagree are refused before anything is trained
        folder: count_flops(wanted, shared.corpus(wanted), shared.machine(wanted))
        for folder, wanted in due.items()
        if finished(wanted) is None
    }
    for config, command in zip(configs, commands, strict=True):
        for wanted in (dense_baseline(config), config):
            folder = run_folder(wanted)
            if folder in records:
                continue
            record = finished(wanted)
            if record is not None:
                print(f"{folder} has been run already and is used as it is.")
            else:
                record = run(wanted, shared.corpus(config), shared.machine(config), command, counted=counted[folder])
            if record.run.message:
                print(f"{record.run.id}: {record.run.message}.")
            records[folder] = record
    _report(configs)
    return all(record.run.status == "finished" for record in records.values())


class _Shared:
    """What runs of equal settings share in a sweep: the text, and the machine as it was measured."""

    def __init__(self) -> None:
        self.corpora: dict[str, Corpus] = {}
        self.machines: dict[tuple[str, str, int | None], Machine] = {}

    def corpus(self, config: RunConfig) -> Corpus:
        """The text of `config`; the first time, what it gives too few items for is told."""
        key = repr(config.data)
        if key not in self.corpora:
            self.corpora[key] = prepare(config.data)
            for sentence in left_out(self.corpora[key], config.evaluate):
                print(sentence)
        return self.corpora[key]

    def machine(self, config: RunConfig) -> Machine:
        """The machine of `config`, with its threads set."""
        key = config.train.device, config.train.dtype, config.train.threads
        if key not in self.machines:
            self.machines[key] = make_machine(config)
        set_threads(config.train)
        return self.machines[key]


def _check_writable(folder: Path, key: str) -> None:
    """Raise UserError, naming the `key` that chose it, where `folder` cannot be written; leaves nothing behind."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Set {key} to another folder.") from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _report(configs: Sequence[RunConfig]) -> None:
    from bench.report import summary_table, verdicts  # draws: slow to import, and not needed until here
    from bench.report.load import read_results
    from bench.report.write import write_report

    places = dict.fromkeys((config.results_dir, config.reports_dir, comparison_name(config)) for config in configs)
    for results, reports, name in places:
        comparisons, _ = read_results(Path(results) / name)
        for comparison in comparisons:
            stored = [run.record for group in comparison.groups for run in group.runs]
            print(f"\n{summary_table(stored, Path(results))}\n")
            for sentence in verdicts(stored, Path(results)):
                print(sentence)
            print(f"\nreport: {write_report(comparison, Path(reports))}")
