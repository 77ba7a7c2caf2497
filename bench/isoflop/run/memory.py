"""The memory of a study's runs, and of the device they are trained on."""

from __future__ import annotations

import os

import torch

from bench.isoflop.run.grid import Grid, Job
from bench.runs.dry_run import training_memory


def planned_memory(grid: Grid) -> list[tuple[float, Job]]:
    """Bytes that training takes at most, of each run that the sizes of every method and budget begin with."""
    sizes = grid.sizes(dict.fromkeys(grid.methods, grid.config.train.lr_at_128))
    return [(training_memory(job.plan, job.config), job) for jobs in sizes.values() for job in jobs]


def memory_bytes(device: torch.device) -> float:
    """All the memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
