"""Peak memory of a training step."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak_bytes(step: Callable[[], object], model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Bytes of tensors at the highest point of a `step`, weights and optimiser state included; one before it warms up.

    On CUDA the allocator keeps this figure, for all that the process has on the device. On a CPU torch
    has no allocator statistics, so the allocations that the profiler sees in the step are added up in
    order, on top of what stays allocated between steps. That leaves out the interpreter and the
    libraries, which are the same for every method.
    """
    step()  # a first one may compile, which takes memory that steps do not
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
