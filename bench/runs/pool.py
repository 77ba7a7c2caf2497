"""Concurrent runs: worker processes, and one progress display over all of them.

Speed is never timed while workers run.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from bench.config.identity import run_folder, run_title
from bench.config.schema import RunConfig
from bench.data import prepare
from bench.errors import Interrupted, UserError
from bench.flops.match import Plan
from bench.flops.trace import Traced
from bench.measure.machine import Machine, keep_freed_memory
from bench.records.isoflop import Packing
from bench.runs.prepared import prepare_run
from bench.runs.run import train_once
from bench.train.log import Progress

SPAWN = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
_REPORT_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Job:
    """One run: its configuration and its plan. command: of its record; counted: its FLOPs, if they were counted."""

    config: RunConfig
    plan: Plan
    command: str = ""
    counted: Traced | None = None

    @property
    def flops(self) -> float:
        return self.plan.budget_flops


@dataclass
class _Report:
    """A worker's message: progress | done | stopped | failed. seconds: of all steps of a run that is done."""

    worker: int
    kind: str
    progress: Progress | None = None
    message: str = ""
    seconds: float = 0.0


@dataclass
class _Running:
    """A job in progress. first, seconds: time of its steps before this session, and until now."""

    job: Job
    first: float | None = None
    last: Progress | None = None
    seconds: float = 0.0


class Pool:
    """Worker processes that train the jobs assigned to them; a context manager.

    command: of jobs that have none. flops: of all runs, and of those that had ended before, for the progress display.
    `training_seconds` is the time spent in training steps so far, summed over workers. deadline: in seconds by
    time.monotonic; None: none.
    """

    def __init__(
        self, packing: Packing, machine: Machine, command: str, flops: tuple[float, float], deadline: float | None
    ):
        self.packing, self.command, self.deadline = packing, command, deadline
        self.training_seconds = 0.0
        self.reports: Any = SPAWN.Queue()
        self.tasks = [SPAWN.Queue() for _ in range(packing.workers)]
        self.workers = [
            SPAWN.Process(target=_work, args=(n, tasks, self.reports, machine, packing), daemon=True)
            for n, tasks in enumerate(self.tasks)
        ]
        self.running: dict[int, _Running] = {}
        self.stopping = False
        total_flops, self.done_flops = flops
        self.bar = tqdm(
            total=total_flops,
            initial=self.done_flops,
            dynamic_ncols=True,
            smoothing=0.02,
            bar_format="{percentage:3.0f}%, {remaining} left, {desc}",  # a narrow terminal cuts its end
        )

    def __enter__(self) -> Pool:
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for worker in self.workers:
            worker.join(timeout=10)
            if worker.is_alive():
                worker.kill()
        self.bar.close()

    def train(self, missing: Callable[[], Sequence[Job]]) -> None:
        """Train the jobs that `missing` lists, in its order; it is called again whenever a run has ended.

        Raises Interrupted after a signal or at the deadline, UserError on a failure, with checkpoints written.
        """
        idle = list(range(len(self.workers)))
        before = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            waiting = self._waiting(missing)
            while waiting or self.running:
                if self.stopping or (self.deadline is not None and time.monotonic() > self.deadline):
                    raise Interrupted
                while waiting and idle:
                    self._assign(idle.pop(), waiting.popleft())
                report = self._next_report()
                if report is not None and self._handle(report):
                    idle.append(report.worker)
                    if waiting:  # before `missing` is called, which is slow
                        self._assign(idle.pop(), waiting.popleft())
                    waiting = self._waiting(missing)
                self._show(len(waiting))
            if self.stopping:  # as the last run ended
                raise Interrupted
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            if self.running:
                self._stop()

    def _on_signal(self, *_: object) -> None:
        """Sets a flag: an exception would be lost if it were raised in a callback."""
        self.stopping = True

    def _waiting(self, missing: Callable[[], Sequence[Job]]) -> deque[Job]:
        under_way = {run_folder(running.job.config): running.job.flops for running in self.running.values()}
        waiting = deque(job for job in missing() if run_folder(job.config) not in under_way)
        known = self.done_flops + sum(under_way.values()) + sum(job.flops for job in waiting)
        self.bar.total = max(self.bar.total, known)
        return waiting

    def _assign(self, worker: int, job: Job) -> None:
        self.running[worker] = _Running(job)
        self.tasks[worker].put((job.config, job.command or self.command, job.counted))

    def _next_report(self) -> _Report | None:
        try:
            return self.reports.get(timeout=1.0)
        except queue.Empty:
            gone = [worker for worker in self.running if not self.workers[worker].is_alive()]
            if gone and self.reports.empty():
                code = self.workers[gone[0]].exitcode
                raise UserError(
                    f"the process that trained {run_title(self.running[gone[0]].job.config)} died (exit code {code}); "
                    "out of memory? Run the same command again to resume, with study.grid.workers=1 if that fails."
                ) from None
            return None

    def _handle(self, report: _Report) -> bool:
        """Whether the worker is free again."""
        running = self.running[report.worker]
        if report.kind == "progress":
            assert report.progress is not None
            if running.first is None:  # reported after a step: the run's first one, or the first since a checkpoint
                begun = report.progress.flops <= running.job.plan.step_flops
                running.first = 0.0 if begun else report.progress.seconds
            running.last, running.seconds = report.progress, report.progress.seconds
            return False
        if report.kind == "done":  # its last steps may not have been reported
            running.seconds = report.seconds
        self._release(report.worker)
        if report.kind == "failed":
            raise UserError(report.message)
        if report.kind == "stopped":  # a signal that reached only the worker
            raise Interrupted
        self.done_flops += running.job.flops
        return True

    def _release(self, worker: int) -> None:
        running = self.running.pop(worker)
        self.training_seconds += 0.0 if running.first is None else running.seconds - running.first

    def _stop(self) -> None:
        """Have every worker write a checkpoint and end."""
        for worker in self.workers:
            if worker.is_alive():
                worker.terminate()
        for worker in self.workers:
            worker.join(timeout=60)
        while not self.reports.empty():  # their last reports
            report = self.reports.get()
            if report.kind == "progress" and report.worker in self.running:
                self._handle(report)
        for number in list(self.running):
            self._release(number)

    def _show(self, waiting: int) -> None:
        under_way = [each for each in self.running.values() if each.last]
        self.bar.n = self.done_flops + sum(min(each.last.flops, each.job.flops) for each in under_way if each.last)
        each_one = "; ".join(f"{_name(each.job.config)} {_state(each.last)}" for each in under_way if each.last)
        self.bar.set_description_str(f"{waiting} waiting; {each_one}", refresh=False)
        self.bar.update(0)


def _state(last: Progress) -> str:
    return f"loss {last.loss:.3f}" if last.share < 1.0 else "is measured"


def _name(config: RunConfig) -> str:
    return f"{config.method.name} {config.model.n_layers}x{config.model.d_model}"


def _work(number: int, tasks: Any, reports: Any, machine: Machine, packing: Packing) -> None:
    """A worker: trains jobs until it receives None, or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and decides
    keep_freed_memory()
    torch.set_num_threads(packing.threads)
    alone = packing.workers == 1  # otherwise the machine's energy counter includes other runs
    _follow_parent()
    corpora: dict[str, Any] = {}
    reported = 0.0

    def show(progress: Progress) -> None:
        nonlocal reported
        if time.monotonic() - reported > _REPORT_EVERY or progress.share >= 1.0:
            reported = time.monotonic()
            reports.put(_Report(number, "progress", progress))

    while (task := tasks.get()) is not None:
        config, command, counted = task
        reported = 0.0
        try:
            key = repr(config.data)
            if key not in corpora:
                corpora[key] = prepare(config.data)
            corpus = corpora[key]
            prepared = prepare_run(config, corpus.tokenizer.vocab_size)
            record = train_once(prepared, corpus, machine, command, show, alone, counted)
        except Interrupted:
            reports.put(_Report(number, "stopped"))
            return
        except UserError as error:
            reports.put(_Report(number, "failed", message=str(error)))
        except Exception:
            reports.put(_Report(number, "failed", message=f"{run_title(config)} failed:\n{traceback.format_exc()}"))
        else:
            reports.put(_Report(number, "done", seconds=record.training.seconds))


def _follow_parent() -> None:
    """End, with a checkpoint, when the parent has been killed and cannot stop its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
