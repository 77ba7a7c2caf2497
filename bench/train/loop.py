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
from bench.errors import Interrupted, UserError
from bench.flops.match import Plan
from bench.train import checkpoint
from bench.train.divergence import WINDOW, explosion
from bench.train.log import Progress, Show, StepLog
from bench.train.optimiser import schedule
from bench.train.step import Trainee

SNAPSHOTS = "snapshots"  # folder of weights kept during training


@dataclass
class Trained:
    """The outcome of training. seconds: of steps only; diverged: why the run counts as diverged, in words."""

    steps: int
    tokens: int
    flops: float
    seconds: float
    final_loss: float | None
    diverged: str | None = None


@dataclass
class Budget:
    """When to stop: at training FLOPs as routing decides them, or after `steps` or `seconds` of training if given."""

    flops: float
    steps: int | None = None
    seconds: float | None = None

    def allows(self, flops: float, plan: Plan) -> bool:
        """Whether a run of this budget can have spent `flops`; executed FLOPs may be above the planned ones."""
        return self.seconds is not None or flops <= 2 * self.flops + 2 * plan.step_flops

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
    if state is not None and not budget.allows(state["flops"], plan):
        raise UserError(
            f"{folder}: the checkpoint holds {state['flops']:.3g} training FLOPs, more than the {budget.flops:.3g} "
            f"planned. Delete {folder} to train from the start."
        )
    state = state or {"step": 0, "flops": 0.0, "seconds": 0.0, "losses": [], "first": None, "best": None}
    with StepLog(folder / checkpoint.LOG, state["step"]) as log, _stop_on_signal() as stop:
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
                return _finish(state, plan, f"the loss became NaN at step {state['step']}")
            _remember(state, report.loss)
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
    # the checkpoint is there so that training is not repeated if the record cannot be written
    return _finish(state, plan, _diverged(state, trainee, batches))


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


def _remember(state: dict[str, Any], loss: float) -> None:
    """Keep the first loss, the last ones, and the lowest mean over a whole window of them."""
    state["first"] = loss if state["first"] is None else state["first"]
    state["losses"] = [*state["losses"][1 - WINDOW :], loss]
    if len(state["losses"]) == WINDOW:
        state["best"] = min(_mean(state), math.inf if state["best"] is None else state["best"])


def _diverged(state: dict[str, Any], trainee: Trainee, batches: Batches) -> str | None:
    """Why the run counts as diverged: by its last losses, or by the loss now, as the last step may have ruined it."""
    now, vocab_size = trainee.loss(*batches.at(0)), trainee.model.vocab_size
    if not math.isfinite(now):
        return f"the loss became NaN after step {state['step']}"
    first, best = state["first"] or 0.0, state["best"]  # None: of a checkpoint from before they were kept
    return explosion(_mean(state), first, best, vocab_size) or explosion(now, first, None, vocab_size)


def _mean(state: dict[str, Any]) -> float:
    return sum(state["losses"]) / len(state["losses"])


def _tokens(state: dict[str, Any], plan: Plan) -> int:
    return state["step"] * plan.batch_tokens


def _finish(state: dict[str, Any], plan: Plan, diverged: str | None) -> Trained:
    return Trained(
        steps=state["step"],
        tokens=_tokens(state, plan),
        flops=state["flops"],
        seconds=state["seconds"],
        final_loss=_mean(state) if state["losses"] else None,
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
