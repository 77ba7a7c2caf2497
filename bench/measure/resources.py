"""What a run uses: peak memory of a training step, and energy if the machine reports it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def peak_bytes(step: Callable[[], object], model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Peak bytes of tensors in a `step`, weights and optimiser state included; a first step warms up.

    On CUDA the allocator keeps this figure, for everything that the process has on the device. On a CPU torch has no
    allocator statistics: the profiler's allocations are added up in order, on top of what stays between steps. That
    excludes the interpreter and the libraries, which are the same for every method.
    """
    step()  # the first may compile, which takes more memory
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    kept = sum(p.numel() * p.element_size() for p in model.parameters())
    kept += sum(
        v.numel() * v.element_size() for s in optimiser.state.values() for v in s.values() if torch.is_tensor(v)
    )
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it prints its own start and stop otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results = profiler.profiler.kineto_results  # the public summary has no order in time
    changes = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    held = highest = 0
    for _, change in changes:
        held += change
        highest = max(highest, held)
    return kept + highest


def joules(device: torch.device) -> float | None:
    """An energy counter in joules, by Intel's RAPL on a CPU and by NVML on an NVIDIA GPU; None if unavailable."""
    if device.type == "cuda":
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError:
            return None
    try:
        return int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None
