"""How many concurrent runs give the highest throughput: measured before a study's first run.

A small run saturates neither two cores nor a GPU, so one worker with all threads is compared with several with fewer.
On a GPU, several are tried only where as many of the largest run fit into its memory.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from typing import Any

import torch

from bench.config.schema import RunConfig
from bench.data import Batches, prepare
from bench.isoflop.run.plan import memory_bytes
from bench.isoflop.run.session import Session
from bench.measure.machine import Machine, keep_freed_memory
from bench.measure.speed import synchronise
from bench.records.isoflop import Packing
from bench.runs.pool import SPAWN, Job
from bench.train.step import Trainee

_MEASURED_SECONDS = 4.0
_CUDA_WORKERS = (1, 2, 4)


def measure_packing(
    session: Session, jobs: Sequence[Job], largest: float, machine: Machine, workers: int | None
) -> None:
    """Put into the study's packings the throughput on `jobs` with one worker and more, best first.

    largest: bytes of memory of the study's largest run. workers: the requested number, which goes first and is measured
    if it has not been. None: the best, which is kept once runs have been trained. Saves after each measurement. Raises
    Interrupted past the deadline.
    """
    study = session.study
    if workers is None and study.packings and study.training_seconds:
        return
    cores = torch.get_num_threads()
    counts = _counts(machine, largest, cores) if workers is None else [workers]
    missing = [count for count in counts if count not in {packing.workers for packing in study.packings}]
    if missing:
        print("\nMeasuring the throughput of concurrent runs.", flush=True)
    for count in missing:
        session.check()
        found = [*study.packings, _measured(jobs, machine, count, max(1, cores // count))]
        study.packings = sorted(found, key=lambda packing: -packing.flops_per_second)
        session.save()
    if workers is not None:
        study.packings = sorted(study.packings, key=lambda packing: packing.workers != workers)
        session.save()


def _counts(machine: Machine, largest: float, cores: int) -> list[int]:
    """Numbers of workers to try: on a GPU as many as have room for the largest run, elsewhere up to the cores."""
    if machine.device.type != "cuda":
        return [count for count in (1, 2, 4, 8, 16, 32) if count <= cores]
    room = memory_bytes(machine.device)
    return [count for count in _CUDA_WORKERS if count == 1 or count * largest <= room]


def _measured(jobs: Sequence[Job], machine: Machine, workers: int, threads: int) -> Packing:
    barrier, rates = SPAWN.Barrier(workers), SPAWN.Queue()
    configs = [job.config for job in jobs]
    flops = [job.plan.step_flops for job in jobs]
    started = [
        SPAWN.Process(target=_rate, args=(configs, flops, machine, threads, barrier, rates), daemon=True)
        for _ in range(workers)
    ]
    for process in started:
        process.start()
    total = 0.0
    for _ in started:
        while True:
            try:
                total += rates.get(timeout=1.0)
                break
            except queue.Empty:
                if any(process.exitcode for process in started):  # out of memory, for example
                    for process in started:
                        process.kill()
                    return Packing(workers=workers, threads=threads, flops_per_second=0.0)
    for process in started:
        process.join()
    return Packing(workers=workers, threads=threads, flops_per_second=total)


def _rate(configs: list[RunConfig], flops: list[float], machine: Machine, threads: int, barrier: Any, rates: Any):
    """FLOP/s over equal FLOPs of each configuration, while the other workers run."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    seconds_per_flop = 0.0
    for config, step_flops in zip(configs, flops, strict=True):
        corpus = prepare(config.data)
        trainee = Trainee.of(config, config.model, corpus.tokenizer.vocab_size, machine.device)
        inputs, targets = Batches(corpus.train, config.model.context, config.train.batch_size, 0).at(0)
        for _ in range(2):
            trainee.step(inputs, targets, 0.0)
        synchronise(machine.device)
        barrier.wait()
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < _MEASURED_SECONDS:
            trainee.step(inputs, targets, 0.0)
            synchronise(machine.device)
            steps += 1
        seconds_per_flop += (time.perf_counter() - started) / (steps * step_flops)
    rates.put(len(configs) / seconds_per_flop)
