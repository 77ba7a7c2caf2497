"""The machine: device, threads, memory allocator, rate of matrix products, and the versions that figures depend on."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from bench.config.schema import RunConfig, TrainConfig
from bench.errors import UserError
from bench.measure.speed import matmul_rate
from bench.records.record import Environment
from bench.train.step import precision

_PACKAGES = ("torch", "numpy", "fvcore", "lm-eval", "hydra-core", "tokenizers", "datasets", "safetensors")
_THREADS = torch.get_num_threads()  # torch's default, before any run has set another number
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass
class Machine:
    """Where runs happen: the device, and its matrix-product rate in FLOP/s at the training dtype."""

    device: torch.device
    matmul_flops: float


def environment(device: torch.device) -> Environment:
    """The machine and the versions that the figures depend on."""
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        packages={name: metadata.version(name) for name in _PACKAGES},
        processor=_processor() if device.type == "cpu" else None,
    )


def _cpu_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _processor() -> str | None:
    """What distinguishes processors of the same name, as in clouds; None if the system does not say."""
    found = _cpuinfo()
    if "cpu family" not in found:
        return None
    model = " ".join(f"{key.removeprefix('cpu ')} {found.get(key, '?')}" for key in ("cpu family", "model", "stepping"))
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def git_commit() -> str | None:
    """The commit of the code that ran, marked if code or configuration differ from it; records and reports may differ.

    None outside a checkout of bench: code installed inside another project's checkout does not belong to its commits.
    """
    own = Path(__file__).resolve()

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=own.parents[2], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", str(own))
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":!results", ":!reports")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def make_machine(config: RunConfig) -> Machine:
    """Set up device, threads and allocator, and measure the matrix-product rate."""
    train_config = config.train
    if train_config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda, but torch finds no CUDA device here; use train.device=cpu.")
    kind = "cuda" if train_config.device != "cpu" and torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    set_threads(train_config)
    device = torch.device(kind)
    return Machine(device, matmul_rate(device, precision(train_config, device)))


def available_bytes(device: torch.device) -> float:
    """Memory that this process can still take on `device`: by the driver on CUDA; elsewhere by what Linux says is
    available, by the limit of its control group and by `ulimit -v`. Infinite where nothing says.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    limits = [math.inf]
    for path, key in (("/proc/meminfo", "MemAvailable:"), ("/sys/fs/cgroup/memory.max", "")):
        with suppress(OSError, ValueError, IndexError):
            words = Path(path).read_text(encoding="utf-8").split()
            limits.append(1024.0 * int(words[words.index(key) + 1]) if key else float(int(words[0])))
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return min(limits)
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            limits.append(float(address_space - pages * resource.getpagesize()))
    return min(limits)


def keep_freed_memory() -> None:
    """Have the allocators of this process keep what a training step frees for the next one; Linux only.

    By default glibc hands large tensors back to the kernel, which clears every page again when the next step requests
    it: up to an eighth of a step, in the model of a comparison that happens to be last in memory. With huge pages,
    large tensors take a page fault per 2 MiB instead of 4 KiB: several percent of a step. torch reads that setting
    once, at its first allocation, so call this before any tensor exists.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from other C libraries, such as musl
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_TRIM_THRESHOLD, -1)


def set_threads(config: TrainConfig) -> None:
    """The configured number. Without one, torch's default, in case an earlier run of this process changed it."""
    if config.threads is not None or torch.get_num_threads() != _THREADS:
        torch.set_num_threads(config.threads or _THREADS)
