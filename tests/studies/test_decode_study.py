"""The parts of the decode study: shares that are set, targets that state the share they hold for."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.config.schema import DepthConfig, MethodConfig, ModelConfig, RunConfig, StudyConfig
from bench.measure.decode import Roofline, decode_point
from bench.measure.machine import Machine
from bench.methods import build_model
from bench.records.record import Environment
from bench.records.targets import Targets
from bench.report.decoding import decode_table
from bench.studies.decode import _method_targets, _pass_capacity, _points, _predictor_targets

torch.set_num_threads(1)
SHAPE = ModelConfig(n_layers=4, d_model=32, n_heads=4, context=128, d_ff=48)
ROOFLINE = Roofline(1e11, 1e10)


def _models(causal="predictor"):
    mod = MethodConfig("mod", depth=DepthConfig(0.25, predictor_hidden=8, causal=causal))
    return [build_model(SHAPE, method, 50).eval() for method in (MethodConfig("dense"), mod)]


def _text(rows, length=105):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("causal", ["predictor", "threshold"])
@torch.no_grad()
def test_pass_capacity_holds_for_the_prompt_and_the_timed_tokens(causal):
    (dense, model), text = _models(causal), _text(4)
    for parameter in model.parameters():
        parameter.mul_(3.0)  # or nothing drifts
    for _ in range(2):  # one point after the other
        for_steps = _pass_capacity([model], text, 64)
        _, routings = model(text[:, :64], causal=True)
        assert [routing.metrics["fraction_processed"].item() for routing in routings] == pytest.approx([0.25, 0.25])
        _, point = decode_point(dense, [model], text, 64, 40, ROOFLINE, for_steps)
        assert point.fraction_processed == pytest.approx(0.25)


@torch.no_grad()
def test_points_measure_the_ceiling_in_the_dtype_that_decodes(monkeypatch):
    """Not in the dtype of training, for which the machine's rate was measured."""
    rates = {torch.float32: 2e9, torch.bfloat16: 8e9}
    monkeypatch.setattr("bench.studies.decode.matmul_rate", lambda device, dtype: rates[dtype])
    monkeypatch.setattr("bench.studies.decode.memory_rate", lambda device: 1e30)
    config = RunConfig(study=StudyConfig(name="decode", rounds=8, points=[[2, 32]]))
    corpus = SimpleNamespace(train=_text(1, 500)[0].numpy())
    machine = Machine(torch.device("cpu"), rates[torch.bfloat16])
    (point,) = _points(config, corpus, machine, dict(zip(["dense", "mod"], _models(), strict=True)))["dense"]
    seconds = point.flops_per_token / rates[torch.float32]
    assert point.roofline_share == pytest.approx(seconds * point.tokens_per_second)


@torch.no_grad()
def test_method_targets_state_the_share_processed_and_flag_a_far_one(monkeypatch):
    monkeypatch.setattr("bench.studies.decode._CONTEXT", 64)
    (dense, model), text = _models(), _text(2)
    for_steps = _pass_capacity([model], text, 64)
    _, point = decode_point(dense, [model], text, 64, 40, ROOFLINE, for_steps)
    speed, cache = _method_targets("mod", [point], 0.25)
    assert speed.figure == "mod decode over dense, batch 2, context 64, 25.0 % processed"
    assert cache.figure.endswith("batch 2, context 64") and cache.value.median == point.kv_cache_ratio
    far, _ = _method_targets("mod", [point.model_copy(update={"fraction_processed": 0.19})], 0.25)
    assert far.figure.endswith("19.0 % processed, FAR FROM THE CAPACITY OF 25 %")


@torch.no_grad()
def test_decode_table_shows_held_and_allocated_cache():
    (dense, model), text = _models(), _text(2)
    for_steps = _pass_capacity([model], text, 64)
    points = decode_point(dense, [model], text, 64, 40, ROOFLINE, for_steps)
    environment = Environment(
        python="3.11", torch="2.13", device="cpu", device_name="a cpu", platform="linux", threads=2, packages={}
    )
    record = Targets(
        study="decode", created="", command="", environment=environment, shape={}, rounds=40, targets=[],
        decode={"dense": [points[0]], "mod": [points[1]]},
    )  # fmt: skip
    table = decode_table(record)
    held = points[1].kv_cache_held_bytes / points[0].kv_cache_held_bytes
    assert table.data["kv_cache_held_ratio"].tolist()[1] == held != points[1].kv_cache_ratio
    assert table.rows[0][-1] == "–" and table.rows[1][-1].startswith(f"{held:.2f}")


def test_predictor_targets_need_records_of_the_default_comparison(tmp_path):
    assert _predictor_targets(tmp_path) == []
    accuracy, loss = _predictor_targets(Path(__file__).parents[2] / "results" / "default")
    assert accuracy.value.samples == 3 and 0.9 < accuracy.value.median < 1
    assert loss.at_most == 1.005 and abs(loss.value.median - 1) < 0.01
