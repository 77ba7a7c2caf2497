"""Energy, where the machine reports it: Intel's RAPL counters on a CPU, NVML on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path

import torch

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def joules(device: torch.device) -> float | None:
    """A counter that grows with the energy used, in joules; None where there is none to read."""
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
