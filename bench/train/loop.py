"""The loop: from a plan to trained weights, with a log, checkpoints and a way to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import Batches
from bench.errors import Interrupted
from bench.flops.match import Plan
from bench.train import checkpoint
from bench.train.log import Progress, Show, StepLog
from bench.train.optimiser import schedule
from bench.train.step import Trainee

SNAPSHOTS = "snapshots"  # folder of weights kept during training


@dataclass
class Trained:
    """The outcome of training. seconds: of steps only; diverged: the step at which the loss became NaN."""

    steps: int
    tokens: int
    flops: float
    seconds: float
    final_loss: float | None
    diverged: int | None = None


@dataclass
class Budget:
    """When to stop: at training FLOPs as routing decides them, or after `steps` or `seconds` of training if given."""

    flops: float
    steps: int | None = None
    seconds: float | None = None

    def progress(self, state: dict[str, Any]) -> float:
        """Share of the budget that is spent."""
        if self.seconds is not None:
            return state["seconds"] / self.seconds
        return state["flops"] / self.flops if self.steps is None else state["step"] / self.steps

    def step(self, state: dict[str, Any], plan: Plan) -> float:
        """Share that the next step is expected to spend."""
        if self.seconds is not None:
            return self.progress(state) / state["step"] if state["step"] else 1 / plan.steps
        return plan.step_flops / self.flops if self.steps is None else 1 / self.steps


def train(
    trainee: Trainee,
    batches: Batches,
    plan: Plan,
    budget: Budget,
    folder: Path,
    owner: checkpoint.Owner,
    show: Show,
) -> Trained:
    """Train until `budget` is spent, resuming from a checkpoint in `folder` if there is one.

    Stops at the step whose end is nearest to the budget. Writes `steps.csv`, row by row, and `train.snapshots`
    snapshots of the weights; calls `show` after each step. Compilation happens before the first step and does not count
    in its seconds. Raises Interrupted after a signal, with a checkpoint written.
    """
    config = trainee.config
    state = checkpoint.load(folder, trainee.model, trainee.optimiser, owner)
    state = state or {"step": 0, "flops": 0.0, "seconds": 0.0, "losses": []}
    with StepLog(folder / "steps.csv", state["step"]) as log, _stop_on_signal() as stop:
        if trainee.compiles:
            trainee.warm_up(*batches.at(state["step"]))
        saved_at = time.monotonic()
        share = budget.progress(state)
        while state["step"] == 0 or _steps_left(state, budget, plan) > 0:
            inputs, targets = batches.at(state["step"])
            lr = trainee.peak_lr * schedule(_after_next(state, budget, plan), config)
            started = time.perf_counter()
            report = trainee.step(inputs, targets, lr)
            state["seconds"] += time.perf_counter() - started
            state["step"] += 1
            state["flops"] += plan.step_flops + report.extra_flops
            if state["step"] % config.log_every == 0 or not math.isfinite(report.loss):
                log.write(state["step"], _tokens(state, plan), state["flops"], state["seconds"], report, lr)
            if not math.isfinite(report.loss):
                return _finish(state, plan, diverged=state["step"])
            state["losses"] = [*state["losses"][-19:], report.loss]
            before, share = share, budget.progress(state)
            _snapshot(folder, trainee, before, share)
            show(Progress(min(1.0, share), report.loss, _tokens(state, plan), state["flops"], state["seconds"]))
            if stop.requested or time.monotonic() - saved_at > config.checkpoint_every_seconds:
                log.flush()
                checkpoint.save(folder, trainee.model, trainee.optimiser, state, owner)
                saved_at = time.monotonic()
            if stop.requested:
                raise Interrupted
        log.flush()
        checkpoint.save(folder, trainee.model, trainee.optimiser, state, owner)
    return _finish(state, plan)  # so that training is not repeated if the record cannot be written


def _steps_left(state: dict[str, Any], budget: Budget, plan: Plan) -> int:
    """Whole steps that end nearest to the budget."""
    return round((1.0 - budget.progress(state)) / budget.step(state, plan))


def _after_next(state: dict[str, Any], budget: Budget, plan: Plan) -> float:
    """Progress of the schedule at the end of the next step: above 0 for the first, 1 for the last.

    It is a share of the steps that will be taken, which end short of the budget or beyond it.
    """
    spent, step = budget.progress(state), budget.step(state, plan)
    return (spent + step) / (spent + max(1, _steps_left(state, budget, plan)) * step)


def _snapshot(folder: Path, trainee: Trainee, before: float, after: float) -> None:
    """Save the weights when a step ends one of the equal parts of the budget, except the last."""
    parts = trainee.config.snapshots + 1
    part = int(after * parts)
    if part > int(before * parts) and part < parts:
        folder = folder / SNAPSHOTS
        folder.mkdir(exist_ok=True)
        checkpoint.save_tensors(checkpoint.weights(trainee.model), folder / f"{part}-of-{parts}.safetensors")


def _tokens(state: dict[str, Any], plan: Plan) -> int:
    return state["step"] * plan.batch_tokens


def _finish(state: dict[str, Any], plan: Plan, diverged: int | None = None) -> Trained:
    losses = state["losses"]
    return Trained(
        steps=state["step"],
        tokens=_tokens(state, plan),
        flops=state["flops"],
        seconds=state["seconds"],
        final_loss=sum(losses) / len(losses) if losses else None,
        diverged=diverged,
    )


class _Stop:
    requested = False


@contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """Turn SIGINT and SIGTERM into a request that the loop serves after its step, in the main thread alone."""
    stop = _Stop()

    def request(*_: object) -> None:
        stop.requested = True

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
