"""Timing: actions of several models interleaved in one process, and the rates of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that the host clock is right afterwards."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(actions: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each action in each of `rounds` rounds A B C, A B C, ..., after one round of warm-up.

    Drift of the machine affects all of them, so ratios within a round are unbiased.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for round_number in range(rounds + 1):
        for action, samples in zip(actions, seconds, strict=True):
            synchronise(device)
            started = time.perf_counter()
            action()
            synchronise(device)
            if round_number:
                samples.append(time.perf_counter() - started)
    return seconds


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the best of several: the ceiling for utilisation."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    seconds = interleave([lambda: a @ b], 20, device)[0]
    return 2 * side**3 / min(seconds)


def memory_rate(device: torch.device) -> float:
    """Bytes/s that a product of one row with a large matrix reads, the best of several."""
    inner, outer = (16_384, 16_384) if device.type == "cuda" else (4_096, 8_192)
    row, matrix = torch.randn(1, inner, device=device), torch.randn(inner, outer, device=device)
    seconds = interleave([lambda: row @ matrix], 10, device)[0]
    return matrix.nbytes / min(seconds)


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def fixed_batch(inputs: Tensor, targets: Tensor, step: Callable[[Tensor, Tensor, float], object]):
    """A step on the same batch at learning rate 0: all of the work, and no change of the weights.

    Other state changes: AdamW's moments, balance biases, running thresholds.
    """
    return lambda: step(inputs, targets, 0.0)
