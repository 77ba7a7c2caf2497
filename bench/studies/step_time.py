"""`+study=step_time`: a training step of each method compared with a dense one, alternating in one process.

Targets: a method's step over the dense step, relative to the ratio of their counted FLOPs; the dense step over that of
Hugging Face's Llama of the same shape; the loop overhead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.config.compose import configure_method
from bench.config.schema import RunConfig
from bench.data import Batches, Corpus, prepare
from bench.flops.match import Plan, plan
from bench.measure.machine import Machine, make_machine
from bench.measure.speed import fixed_batch, interleave, ratios
from bench.model.transformer import next_token_loss
from bench.records.record import Timing
from bench.records.targets import Target
from bench.studies.reference_models import llama
from bench.studies.targets import finish, model_shape
from bench.train.checkpoint import Owner
from bench.train.log import terminal_bar
from bench.train.loop import Budget, train
from bench.train.optimiser import clip, make_optimiser
from bench.train.step import Trainee

# method -> (upper limit of its step over dense, whether that is a multiple of the FLOP ratio)
_METHODS = {"mod": (1.05, True), "moe": (1.10, False), "mode/staged": (1.12, True)}
_LLAMA_AT_MOST = 0.97
_OVERHEAD_AT_MOST = 0.02
_OVERHEAD_REPEATS, _OVERHEAD_STEPS = 6, 4


def run(config: RunConfig, command: str) -> int:
    """Time the steps, write `targets.json` and its page, print the targets; status 1 if one is missed."""
    assert config.study is not None
    corpus, machine = prepare(config.data), make_machine(config)
    vocab_size = corpus.tokenizer.vocab_size
    batch = Batches(corpus.train, config.model.context, config.train.batch_size, config.seed).at(0)
    dense = plan(config, vocab_size)
    steps: dict[str, Callable[[], object]] = {
        "dense": fixed_batch(*batch, Trainee.of(config, config.model, vocab_size, machine.device).step)
    }
    flop_ratio = {}
    for name in _METHODS:
        own = replace(config, method=configure_method(name))
        flop_ratio[name] = plan(own, vocab_size).step_flops / dense.step_flops
        steps[name] = fixed_batch(*batch, Trainee.of(own, own.model, vocab_size, machine.device).step)
    steps["llama"] = _llama_step(config, vocab_size, machine, batch)
    seconds = dict(zip(steps, interleave(list(steps.values()), config.study.rounds, machine.device), strict=True))
    targets = [_method_target(name, seconds, flop_ratio[name]) for name in _METHODS]
    targets.append(_llama_target(seconds))
    targets.append(_overhead_target(config, dense, corpus, machine))
    shape = {**model_shape(config.model), "batch_size": config.train.batch_size}
    return finish("step_time", config, command, machine.device, shape, targets)


def _llama_step(config: RunConfig, vocab_size: int, machine: Machine, batch: tuple[torch.Tensor, torch.Tensor]):
    """The same step on the reference implementation, with the same optimiser and clipping."""
    model = llama(config.model, vocab_size).to(machine.device)
    optimiser = make_optimiser(model, config.train, 0.0)
    inputs, targets = (tensor.to(machine.device) for tensor in batch)

    def step() -> None:
        next_token_loss(model(inputs).logits, targets).backward()
        clip(model, config.train.grad_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _method_target(name: str, seconds: dict[str, list[float]], flop_ratio: float) -> Target:
    limit, relative = _METHODS[name]
    unit = flop_ratio if relative else 1.0
    return Target(
        figure=f"{name} step over dense" + (", over the ratio of their FLOPs" if relative else ""),
        value=Timing.of([ratio / unit for ratio in ratios(seconds[name], seconds["dense"])]),
        at_most=limit,
        step_seconds=Timing.of(seconds[name]),
        flop_ratio=flop_ratio,
    )


def _llama_target(seconds: dict[str, list[float]]) -> Target:
    return Target(
        figure="dense step over Hugging Face Llama's",
        value=Timing.of(ratios(seconds["dense"], seconds["llama"])),
        at_most=_LLAMA_AT_MOST,
        step_seconds=Timing.of(seconds["dense"]),
    )


class _Timed(Trainee):
    """A trainee that sums the seconds of its forward, backward and update."""

    working = 0.0

    def accumulate(self, *batch: torch.Tensor) -> Any:
        return self._time(super().accumulate, *batch)

    def update(self) -> float:
        return self._time(super().update)

    def _time(self, work: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = work(*arguments)
        self.working += time.perf_counter() - started
        return result


def _overhead_target(config: RunConfig, dense: Plan, corpus: Corpus, machine: Machine) -> Target:
    """The real loop, log and progress bar included: its seconds outside the step, over the step's."""
    shares = []
    for _ in range(_OVERHEAD_REPEATS):
        trainee = _Timed.of(config, config.model, corpus.tokenizer.vocab_size, machine.device)
        batches = Batches(corpus.train, config.model.context, config.train.batch_size, config.seed)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            budget = Budget(_OVERHEAD_STEPS * dense.step_flops)
            with terminal_bar("loop", machine.matmul_flops) as show:
                train(trainee, batches, dense, budget, Path(folder), Owner("overhead", corpus.fingerprint), show)
            whole = time.perf_counter() - started
        shares.append((whole - trainee.working) / trainee.working)
    return Target(
        figure="loop overhead over forward, backward and update", value=Timing.of(shares), at_most=_OVERHEAD_AT_MOST
    )
