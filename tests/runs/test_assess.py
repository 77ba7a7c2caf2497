"""What a trained model is measured with: alone for memory, its baseline for speed, the rate of its own dtype."""

import weakref

import pytest
import torch

from bench.config.compose import configure
from bench.data import prepare
from bench.measure.machine import Machine
from bench.measure.resources import peak_bytes
from bench.runs import assess, run
from bench.runs.prepared import prepare_run
from bench.train.step import Trainee

torch.set_num_threads(1)
TINY = [
    "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=32", "train.batch_size=4",
    "train.budget_flops=3e8", "train.threads=1", "train.device=cpu", "evaluate.validation_tokens=2000",
    "evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]", "evaluate.timing_steps=1", "name=st",
    "seeds=1", "evaluate.speed_shape=null",
]  # fmt: skip
MACHINE = Machine(torch.device("cpu"), 1e11)


@pytest.fixture
def measured(tmp_path):
    """Trains and measures a method, small and in a folder of the test's own."""
    places = [f"results_dir={tmp_path}/results", f"reports_dir={tmp_path}/reports"]

    def measure(method, *more):
        config = configure([f"+method={method}", *TINY, *places, *more])
        prepared, corpus = prepare_run(config), prepare(config.data)
        run.run(prepared, corpus, MACHINE, "command", lambda progress: None)
        return run.time_run(prepared, corpus, MACHINE)

    return measure


def test_memory_is_measured_before_the_baseline_is_built(measured, monkeypatch):
    """On a device the allocator counts all that exists there, so no other model may exist."""
    existing, seen = weakref.WeakSet(), []

    class Counted(Trainee):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            existing.add(self)

    def watched(step, model, optimiser):
        seen.append([trainee.model is model for trainee in existing])
        return peak_bytes(step, model, optimiser)

    monkeypatch.setattr(run, "Trainee", Counted)
    monkeypatch.setattr(assess, "peak_bytes", watched)
    dense = measured("dense")
    mod = measured("mod")
    assert [sum(existed) for existed in seen] == [1, 1] and all(existed[-1] for existed in seen)
    assert mod.speed.train_speedup_realised is not None  # the baseline was there, later
    assert dense.memory is not None and mod.memory is not None


def test_decoding_roofline_uses_the_rate_of_its_own_dtype(measured, monkeypatch):
    """Training in another dtype has another rate; weights are float32, and so are the products of decoding."""
    asked = []

    def rate(device, dtype):
        asked.append((device, dtype))
        return 2e9

    monkeypatch.setattr(assess, "matmul_rate", rate)
    monkeypatch.setattr(assess, "memory_rate", lambda device: 1e30)  # so that computing is what takes time
    record = measured("dense", "evaluate.decode_batch_sizes=[2]", "train.dtype=bfloat16")
    assert asked == [(torch.device("cpu"), torch.float32)]
    assert record.speed.matmul_flops_per_second == MACHINE.matmul_flops and record.training.dtype == "bfloat16"
    (point,) = record.speed.decode
    assert point.roofline_share == pytest.approx(point.flops_per_token / 2e9 * point.tokens_per_second)
