"""The plan of an isoFLOP study, printed before anything is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.formats import aligned, duration, scaled
from bench.isoflop.run.grid import Grid
from bench.measure.machine import Machine
from bench.records.isoflop import Packing
from bench.runs.dry_run import training_memory
from bench.runs.pool import Job

# Share of the rate of matrix products. In the study isoflop_cpu, on two cores of 215 GFLOP/s, single steps reach 0.06
# to 0.35 of it, and two concurrent runs 0.22 together.
_SMALL_SHAPES = 0.2


def planned_memory(grid: Grid) -> list[tuple[float, Job]]:
    """(bytes that training takes at most, run) for each run of the first window of every method and budget."""
    sizes = grid.sizes(dict.fromkeys(grid.methods, grid.config.train.lr_at_128))
    return [(training_memory(job.plan, job.config), job) for jobs in sizes.values() for job in jobs]


def memory_bytes(device: torch.device) -> float:
    """All the memory of a GPU, or of this machine; infinite on Windows, which does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe(grid: Grid, machine: Machine, packing: Packing | None) -> str:
    """Stages with runs, FLOPs and estimated time; the sizes of each budget and method; the memory of the largest.

    packing: the measured throughput of concurrent runs, None before it is measured.
    """
    device = _device(grid, machine, packing)
    stages = [["stage", "runs", "training FLOPs", "time (estimate)"]]
    planned = grid.planned_flops()
    for name, (runs, flops) in [*planned.items(), ("all", tuple(map(sum, zip(*planned.values(), strict=True))))]:
        stages.append([name, f"{runs:,}", f"{flops:.3g}", duration(flops / device.flops_per_second)])
    jobs = grid.sizes(dict.fromkeys(grid.methods, grid.config.train.lr_at_128))
    sizes = [["method", "budget", "layers x d_model", "active parameters", "tokens", "steps"]]
    for (name, budget), own in jobs.items():
        first, last = own[0], own[-1]
        shapes = " ".join(f"{job.config.model.n_layers}x{job.config.model.d_model}" for job in own)
        params = f"{scaled(first.plan.count.params_active)} to {scaled(last.plan.count.params_active)}"
        tokens = f"{scaled(first.plan.tokens)} to {scaled(last.plan.tokens)}"
        sizes.append([name, f"{budget:.3g}", shapes, params, tokens, f"{first.plan.steps:,} to {last.plan.steps:,}"])
    memory = planned_memory(grid)
    return "\n".join(
        [
            f"{grid.config.study.name if grid.config.study else 'study'}: training on {grid.config.data.name}, "
            f"context {grid.config.model.context}, {grid.config.train.batch_size} sequences per step",
            "",
            *aligned(stages),
            "",
            *aligned(sizes),
            "",
            f"A run takes at most {max(size for size, _ in memory) / 2**30:.2f} GiB. Time: on {device.name}, "
            f"{device.rate}. It covers training steps only: windows whose best run is at a grid edge are extended, "
            "and evaluation, packing, step times and token statistics take more.",
            *_too_large(memory, device),
        ]
    )


@dataclass(frozen=True)
class _Device:
    """The device that a plan is made for. rate: the source of the total FLOP/s of concurrent runs, in words."""

    name: str
    flops_per_second: float
    memory_bytes: float
    rate: str


def _device(grid: Grid, machine: Machine, packing: Packing | None) -> _Device:
    """The device named in study.grid.planned_for, or this machine."""
    planned = grid.values.planned_for
    if planned.name and planned.matmul_flops and planned.utilisation and planned.memory_bytes:
        rate = f"one run after another, at {_share(planned.utilisation, planned.matmul_flops)} (study.grid.planned_for)"
        return _Device(planned.name, planned.utilisation * planned.matmul_flops, planned.memory_bytes, rate)
    memory = memory_bytes(machine.device)
    if packing is not None and packing.flops_per_second > 0:
        rate = f"{packing.workers} concurrent runs at {packing.flops_per_second / 1e9:,.0f} GFLOP/s together (measured)"
        return _Device("this machine", packing.flops_per_second, memory, rate)
    share = _share(_SMALL_SHAPES, machine.matmul_flops)
    rate = f"concurrent runs together at {share} (assumed, typical of small shapes; measured before the first run)"
    return _Device("this machine", _SMALL_SHAPES * machine.matmul_flops, memory, rate)


def _share(utilisation: float, matmul_flops: float) -> str:
    return f"{utilisation:.0%} of {matmul_flops / 1e9:,.0f} GFLOP/s of matrix products"


def _too_large(memory: Sequence[tuple[float, Job]], device: _Device) -> list[str]:
    """A warning if runs need more memory than the device has."""
    over = [(size, job) for size, job in memory if size > device.memory_bytes]
    if not over:
        return []
    most, largest = max(over, key=lambda each: each[0])
    shape = f"{largest.config.model.n_layers}x{largest.config.model.d_model}"
    return [
        f"warning: {len(over)} of {len(memory)} runs need more than the {device.memory_bytes / 2**30:.0f} GiB of "
        f"{device.name}, {largest.config.method.name} {shape} {most / 2**30:.0f} GiB. "
        "Use a smaller train.micro_batch_size or fewer shapes; bench does not train on several devices.",
    ]
