"""The plan of an isoFLOP study, printed before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.dry_run import ASSUMED_UTILISATION, duration, training_memory
from bench.machine import Machine
from bench.report.formats import scaled
from bench.study.isoflop.grid import Grid, Job


def describe(grid: Grid, machine: Machine) -> str:
    """Stages with runs, FLOPs and estimated time; the sizes of each budget and method; the memory of the largest."""
    device = _device(grid, machine)
    rate = device.utilisation * device.matmul_flops
    stages = [["stage", "runs", "training FLOPs", "time (estimate)"]]
    planned = grid.planned_flops()
    for name, (runs, flops) in [*planned.items(), ("all", tuple(map(sum, zip(*planned.values(), strict=True))))]:
        stages.append([name, f"{runs:,}", f"{flops:.3g}", duration(flops / rate)])
    jobs = grid.sizes(dict.fromkeys(grid.methods, grid.config.train.lr_at_128))
    sizes = [["method", "budget", "layers x d_model", "active parameters", "tokens", "steps"]]
    for (name, budget), own in jobs.items():
        first, last = own[0], own[-1]
        shapes = " ".join(f"{job.config.model.n_layers}x{job.config.model.d_model}" for job in own)
        params = f"{scaled(first.plan.count.params_active)} to {scaled(last.plan.count.params_active)}"
        tokens = f"{scaled(first.plan.tokens)} to {scaled(last.plan.tokens)}"
        sizes.append([name, f"{budget:.3g}", shapes, params, tokens, f"{first.plan.steps:,} to {last.plan.steps:,}"])
    memory = [(training_memory(job.plan, job.config), job) for own in jobs.values() for job in own]
    return "\n".join(
        [
            f"{grid.config.study.name if grid.config.study else 'study'}: training on {grid.config.data.name}, "
            f"context {grid.config.model.context}, {grid.config.train.batch_size} sequences a step",
            "",
            *_aligned(stages),
            "",
            *_aligned(sizes),
            "",
            f"A run takes at most {max(size for size, _ in memory) / 2**30:.2f} GiB. Time: on {device.name}, one run "
            f"after another, at {device.utilisation:.0%} of {device.matmul_flops / 1e9:,.0f} GFLOP/s of matrix "
            f"products ({device.source}). Sizes whose best run stands at an end are extended.",
            *_too_large(memory, device),
        ]
    )


@dataclass(frozen=True)
class _Device:
    """Whose time and memory a plan is in. source: of its rate."""

    name: str
    matmul_flops: float
    utilisation: float
    memory_bytes: float
    source: str


def _device(grid: Grid, machine: Machine) -> _Device:
    """The one the study is planned for, or this machine."""
    planned = grid.values.planned_for
    if planned.name and planned.matmul_flops and planned.utilisation and planned.memory_bytes:
        return _Device(planned.name, planned.matmul_flops, planned.utilisation, planned.memory_bytes, "as planned for")
    if machine.device.type == "cuda":
        memory = torch.cuda.get_device_properties(machine.device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _Device("this machine", machine.matmul_flops, ASSUMED_UTILISATION, memory, "measured")


def _too_large(memory: Sequence[tuple[float, Job]], device: _Device) -> list[str]:
    """A warning where runs need more memory than the device has."""
    over = [(size, job) for size, job in memory if size > device.memory_bytes]
    if not over:
        return []
    most, largest = max(over, key=lambda each: each[0])
    shape = f"{largest.config.model.n_layers}x{largest.config.model.d_model}"
    return [
        f"warning: {len(over)} of {len(memory)} runs need more than the {device.memory_bytes / 2**30:.0f} GiB of "
        f"{device.name}, {largest.config.method.name} {shape} {most / 2**30:.0f} GiB: "
        "a smaller train.micro_batch_size, fewer shapes, or several devices, which bench does not train on.",
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
