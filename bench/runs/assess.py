"""What is measured on a trained model: quality, routers, causality, tasks, speed, memory, decoding."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.config.plugins import module_of
from bench.config.schema import ContractConfig, RunConfig
from bench.data import Batches, Corpus, Document
from bench.evaluate import evaluate, rolling_difference
from bench.flops.match import Plan, dense_baseline, plan
from bench.measure.audit import audit
from bench.measure.decode import Roofline, decode_point
from bench.measure.machine import Machine
from bench.measure.quality import choose, document_losses, documents_csv, summarise
from bench.measure.resources import peak_bytes
from bench.measure.routing import RoutingObserver, observe_passage
from bench.measure.speed import fixed_batch, interleave, matmul_rate, memory_rate, ratios
from bench.methods.depth import causal_router_names, using_causal_router
from bench.model import Transformer
from bench.records.files import write_atomically
from bench.records.record import (
    CausalRouterStatistics,
    DecodePoint,
    LargerSpeed,
    Memory,
    Record,
    RoutingStatistics,
    Speed,
    Timing,
)
from bench.train.step import Trainee

_AUDIT_ROWS = 2  # of text; the audit adds random ones
_ROUTER_TOKENS = 131_072  # of validation text, on which causal routers are compared
_DECODE_STEPS = 64
_ANY_BUDGET = 1e18  # a plan needs one; only its FLOPs/token are used


def assess(record: Record, config: RunConfig, corpus: Corpus, model: Transformer, folder: Path) -> None:
    """Quality, causality, routing and tasks, into `record` and the files next to it.

    If the last step ruined the weights, so that the loss is not finite, the run counts as diverged; nothing else is
    measured.
    """
    n_noop = config.method.experts.n_noop if config.method.experts else 0
    documents = choose(corpus.validation, config.evaluate.validation_tokens)
    observer = RoutingObserver()
    losses = document_losses(
        model, documents, corpus.tokenizer.eot, config.evaluate.batch_size, model.looks_ahead, observer
    )
    quality = summarise(losses)
    if not math.isfinite(quality.val_loss_nats):
        record.run.status = "diverged"
        record.run.message = f"the validation loss is NaN after step {record.training.steps}"
        return
    record.quality = quality
    record.routing = observer.statistics(n_noop)
    if record.routing is not None and causal_router_names(model):
        compared = choose(documents, _ROUTER_TOKENS)
        record.routing.causal_routers = _causal_routers(config, corpus, model, compared)
    if module_of(config.method.name) is not None:
        record.routing = record.routing or RoutingStatistics()
        record.routing.not_reported = observer.not_reported(model.looks_ahead) or None
    rows = validation_rows(corpus, model, _AUDIT_ROWS)
    record.causality = audit(model, rows, rows_at_once=config.evaluate.batch_size)
    if config.evaluate.tasks:
        record.causality.rolling_difference = rolling_difference(
            model, corpus.tokenizer, documents, config.evaluate.batch_size
        )
    record.run.message = record.causality.failure
    record.causality.passed = record.run.message is None
    if not record.causality.passed:
        record.run.status = "audit_failed"
    write_atomically(folder / "documents.csv", documents_csv(losses))
    if record.routing is not None:
        detail = observer.detail(n_noop, observe_passage(model, documents[0], corpus.tokenizer))
        write_atomically(folder / "routing.json", detail.model_dump_json(exclude_none=True) + "\n")
    scores = evaluate(model, corpus, config.evaluate, 0)
    record.lm_eval = scores or None


def _causal_routers(
    config: RunConfig, corpus: Corpus, model: Transformer, documents: list[Document]
) -> dict[str, CausalRouterStatistics]:
    """Every causal router that the model has, on the same documents."""
    found = {}
    for name in causal_router_names(model):
        observer = RoutingObserver()
        with using_causal_router(model, name):
            losses = document_losses(model, documents, corpus.tokenizer.eot, config.evaluate.batch_size, True, observer)
        found[name] = observer.causal_router(summarise(losses))
    return found


def validation_rows(corpus: Corpus, model: Transformer, at_most: int, last: bool = False) -> Tensor:
    """Rows (B, T) of validation text, one context long or as long as the text allows. From its beginning, where quality
    is measured; or from its end, which in a long text nothing else uses.
    """
    text = np.concatenate([document.tokens for document in corpus.validation]).astype(np.int64)
    rows = max(1, min(at_most, len(text) // model.context))
    length = min(model.context, len(text) // rows)
    start = len(text) - rows * length if last else 0
    return torch.from_numpy(text[start : start + rows * length]).view(rows, length).to(model.embedding.weight.device)


def assess_memory(record: Record, trainee: Trainee, batch: tuple[Tensor, Tensor]) -> None:
    """Peak memory of a training step of this model: before the baseline is built, which a device would also count."""
    gc.collect()
    trainee.model.train()
    step = fixed_batch(*batch, trainee.step)
    record.memory = Memory(peak_bytes=peak_bytes(step, trainee.model, trainee.optimiser))


def assess_speed(
    record: Record,
    solved: Plan,
    trainee: Trainee,
    baseline: tuple[Plan, Trainee] | None,
    corpus: Corpus,
    machine: Machine,
    batch: tuple[Tensor, Tensor],
) -> None:
    """Training steps and decoding of the trained model and of its trained baseline, alternately. Leaves both laid out
    for decoding, so it comes last.
    """
    trainee.model.train()
    own = fixed_batch(*batch, trainee.step)
    actions = [own] if baseline is None else [own, fixed_batch(*batch, baseline[1].step)]
    evaluation = record.config["evaluate"]
    seconds = interleave(actions, evaluation["timing_steps"], machine.device)
    record.speed = step_speed(solved, seconds[0], machine.matmul_flops, trainee.executed_flops(*batch))
    if baseline is not None:
        compare_steps(record.speed, solved, seconds[0], baseline[0], seconds[1])
    models = [trainee.model] if baseline is None else [baseline[1].model, trainee.model]
    record.speed.decode = _decode(models, corpus, machine, evaluation["decode_batch_sizes"])


def step_speed(solved: Plan, seconds: Sequence[float], matmul_flops: float, executed_flops: float) -> Speed:
    """Speed of training steps that took `seconds` each and executed `executed_flops` FLOPs/token; the machine's matrix
    products run at `matmul_flops` FLOP/s.
    """
    step = Timing.of(seconds)
    return Speed(
        train_step_seconds=step,
        train_tokens_per_second=solved.batch_tokens / step.median,
        executed_flops_per_token=executed_flops,
        flop_utilisation=executed_flops * solved.batch_tokens / step.median / matmul_flops,
        matmul_flops_per_second=matmul_flops,
    )


def compare_steps(
    speed: Speed, solved: Plan, seconds: Sequence[float], baseline: Plan, baseline_seconds: Sequence[float]
) -> None:
    """Put the speed-ups over the baseline into `speed`: above 1 the method is faster. Steps alternated."""
    speed.forward_speedup_ideal = baseline.count.forward / solved.count.forward
    speed.train_speedup_ideal = baseline.count.train / solved.count.train
    speed.train_speedup_realised = Timing.of(ratios(baseline_seconds, seconds))


def assess_larger_speed(record: Record, config: RunConfig, corpus: Corpus, machine: Machine) -> None:
    """Training steps at `evaluate.speed_shape`, of fresh models of the method and of dense, alternately."""
    wanted, speed = config.evaluate.speed_shape, record.speed
    if wanted is None or speed is None or config.method.name == "dense":
        return
    model = replace(config.model, n_layers=wanted.n_layers, d_model=wanted.d_model, n_heads=wanted.n_heads)
    train = replace(config.train, batch_size=wanted.batch_size, micro_batch_size=None, budget_flops=_ANY_BUDGET)
    own = replace(config, model=model, train=train, contract=ContractConfig(), baseline=None)
    vocab_size, both = corpus.tokenizer.vocab_size, (dense_baseline(own), own)
    batch = Batches(corpus.train, model.context, wanted.batch_size, config.seed).at(0)
    steps = [fixed_batch(*batch, Trainee.of(each, model, vocab_size, machine.device).step) for each in both]
    dense, method = interleave(steps, config.evaluate.timing_steps, machine.device)
    counts = [plan(each, vocab_size).count.train for each in both]
    speed.larger = LargerSpeed(
        n_layers=wanted.n_layers,
        d_model=wanted.d_model,
        batch_size=wanted.batch_size,
        train_speedup_ideal=counts[0] / counts[1],
        train_speedup_realised=Timing.of(ratios(dense, method)),
    )


def _decode(models: list[Transformer], corpus: Corpus, machine: Machine, batch_sizes: list[int]) -> list[DecodePoint]:
    """The last model's points: half a context is prefilled, and the rest is decoded step by step."""
    if machine.device.type == "cpu":
        models = [model.lay_out_for_decoding() for model in models]
    rate = matmul_rate(machine.device, models[-1].head.weight.dtype)  # which may differ from that of training
    roofline = Roofline(rate, memory_rate(machine.device))
    points = []
    for rows in batch_sizes:
        text = validation_rows(corpus, models[-1], rows)
        text = text[torch.arange(rows) % len(text)]
        context = text.shape[1] // 2
        steps = min(_DECODE_STEPS, text.shape[1] - context - 1)
        points.append(decode_point(models[0], models[1:], text, context, steps, roofline)[-1])
    return points
