"""What is measured: against direct computation, and where a measure must fail."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench.measure.speed as speed_of_steps
from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig, TrainConfig
from bench.data import Document
from bench.flops.match import Plan
from bench.measure.audit import audit
from bench.measure.quality import choose, document_losses, documents_csv, summarise, windows
from bench.measure.resources import peak_bytes
from bench.measure.routing import RoutingObserver, observe_passage
from bench.measure.speed import fixed_batch, interleave, ratios
from bench.methods import build_model
from bench.methods.depth import DepthRouted
from bench.model import Routing
from bench.records.record import Timing
from bench.runs.assess import compare_steps, step_speed
from bench.stats.paired import ratio_stderr
from bench.train.step import Trainee

torch.set_num_threads(1)
T = 16
SHAPE = ModelConfig(n_layers=2, d_model=32, n_heads=2, context=T)
METHODS = {
    "dense": MethodConfig(name="dense"),
    "mod": MethodConfig(name="mod", depth=DepthConfig(capacity=0.25, predictor_hidden=8)),
    "moe": MethodConfig(name="moe", experts=ExpertsConfig(n_experts=4)),
    "integrated": MethodConfig(name="mode", experts=ExpertsConfig(n_experts=4, n_noop=4)),
    "expert_choice": MethodConfig(name="ec", experts=ExpertsConfig(n_experts=4, routing="expert_choice")),
}


def _model(method, seed=0):
    model = build_model(SHAPE, METHODS[method], 64, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return model.eval()


def _documents(*lengths):
    generator = np.random.default_rng(0)
    made = []
    for length in lengths:
        tokens = generator.integers(0, 63, length).astype(np.uint16)
        made.append(Document(text="", tokens=tokens, n_bytes=2 * length))
    return made


@pytest.mark.parametrize("method", list(METHODS))
def test_document_losses_equal_window_by_window_losses(method):
    model, documents = _model(method), _documents(40, 16, 3)
    losses = document_losses(model, documents, 63, batch_size=3, noncausal=True)
    for document, loss in zip(documents, losses, strict=True):
        sequence = torch.tensor([63, *document.tokens.tolist()])
        for causal, measured in ((True, loss.nats), (False, loss.nats_noncausal)):
            total = 0.0
            for start in range(0, len(document.tokens), T):
                piece = sequence[start : start + T + 1]
                with torch.no_grad():
                    logits, _ = model(piece[None, :-1], causal=causal)
                total += torch.nn.functional.cross_entropy(logits[0], piece[1:], reduction="sum").item()
            assert measured == pytest.approx(total, rel=1e-5)


def test_documents_csv_names_the_cluster_of_each_document():
    one, two, alone = _documents(4, 5, 6)
    documents = [replace(one, cluster="Ruth"), replace(two, cluster="Ruth"), alone]
    header, *rows = documents_csv(document_losses(_model("dense"), documents, 63, 3, noncausal=False)).splitlines()
    assert header == "document,cluster,tokens,bytes,nats"
    assert [row.split(",")[:4] for row in rows] == [
        ["0", "Ruth", "4", "8"],
        ["1", "Ruth", "5", "10"],
        ["2", "2", "6", "12"],
    ]


def test_windows_predict_every_token_once():
    documents = _documents(40, 16, 1)
    predicted = {number: [] for number in range(3)}
    for window in windows(documents, T, eot=63):
        assert len(window.inputs) == len(window.targets) <= T
        predicted[window.document] += window.targets.tolist()
    for number, document in enumerate(documents):
        assert predicted[number] == document.tokens.tolist()


def test_choose_takes_whole_documents():
    assert [len(d.tokens) for d in choose(_documents(40, 16, 9), 41)] == [40, 16]


def test_quality_means_have_their_units():
    documents = _documents(40, 16)
    losses = document_losses(_model("dense"), documents, 63, 4, noncausal=False)
    quality = summarise(losses)
    nats = sum(loss.nats for loss in losses)
    assert quality.val_loss_nats == pytest.approx(nats / 56)
    assert quality.val_bpb == pytest.approx(nats / 112 / math.log(2))
    assert quality.val_loss_nats_noncausal is None and quality.val_bpb_noncausal is None
    losses[1].n_bytes = None  # of a tokenizer that loses text
    lossy = summarise(losses)
    assert lossy.val_bpb is None and lossy.val_bpb_stderr is None
    assert lossy.val_loss_nats == quality.val_loss_nats
    assert documents_csv(losses).splitlines()[2].split(",")[3] == ""


def test_ratio_stderr_equals_bootstrap():
    generator = np.random.default_rng(1)
    sizes = generator.integers(50, 200, 60).astype(float)
    totals = sizes * generator.normal(2.0, 0.3, 60)
    draws = generator.integers(0, 60, (4000, 60))
    bootstrap = (totals[draws].sum(1) / sizes[draws].sum(1)).std()
    assert ratio_stderr(totals, sizes) == pytest.approx(bootstrap, rel=0.1)
    assert ratio_stderr(totals[:1], sizes[:1]) is None


@pytest.mark.parametrize("method", list(METHODS))
def test_audit_of_causal_model_passes(method):
    tokens = torch.randint(64, (3, T), generator=torch.Generator().manual_seed(0))
    model = _model(method)
    if method == "expert_choice":  # thresholds come from training passes
        model.train()(tokens)
    assert audit(model, tokens).passed


@pytest.mark.parametrize("method", ["mod", "expert_choice"])
def test_audit_of_router_that_looks_ahead_fails(method):
    """The very same models, routed by top-k where they should be causal."""
    model = _model(method)
    forward = model.forward
    model.forward = lambda tokens, valid=None, causal=False: forward(tokens, valid=valid, causal=False)
    outcome = audit(model, torch.randint(64, (4, T), generator=torch.Generator().manual_seed(0)))
    assert not outcome.passed
    assert outcome.max_abs_logit_change > 100 * outcome.tolerance


def test_routing_statistics_equal_formulas():
    valid = torch.tensor([[True, True, True, False]])
    selected = torch.tensor([[True, False, True, False]])
    choice = torch.tensor([[True, True, False, True]])
    weights = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    observer = RoutingObserver()
    counts = torch.tensor([3, 1, 4])
    observer.watch([Routing(5, selected=choice & valid, scores=weights, causal_choice=choice)], valid, causal=True)
    observer.watch([Routing(5, selected=selected, scores=weights, causal_choice=choice & valid)], valid, causal=False)
    observer.watch([Routing(6, expert_counts=counts)], valid, causal=True)
    found = observer.statistics(n_noop=1)
    assert found.predictor_accuracy == pytest.approx(1 / 3)
    assert found.fraction_processed == pytest.approx(2 / 3)
    assert found.expert_load_cv == pytest.approx(0.5)
    assert found.noop_fraction == pytest.approx(0.5)
    detail = observer.detail(1, None)
    assert sum(detail.weight_counts["selected"]) == 2 and sum(detail.weight_counts["skipped"]) == 1
    assert detail.expert_load == {"6": [3 / 8, 1 / 8, 4 / 8]}


def test_routing_statistics_without_routing_are_absent():
    assert RoutingObserver().statistics(0) is None


def test_passage_shows_choices_of_the_causal_router():
    from bench.data.tokenizer import ByteTokenizer

    shape = ModelConfig(n_layers=2, d_model=32, n_heads=2, context=T)
    model = build_model(shape, METHODS["mod"], 256)
    text = "In the beginning God created"
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.uint16)
    passage = observe_passage(model, Document(text=text, tokens=tokens, n_bytes=len(text)), ByteTokenizer())
    assert "".join(passage.tokens) == text[:T]
    assert passage.layers == [m.layer for m in model.modules() if isinstance(m, DepthRouted)]
    assert [len(row) for row in passage.processed + passage.weights] == [T, T]


def test_timing_is_median_with_order_statistics():
    found = Timing.of([5.0, 1.0, 2.0, 4.0, 3.0, 9.0, 8.0, 7.0, 6.0, 10.0, 11.0, 12.0])
    assert (found.median, found.low, found.high, found.samples) == (6.5, 3.0, 10.0, 12)  # 3rd and 10th of 12: 96.1 %


def test_interleave_alternates_actions():
    order = []
    seconds = interleave([lambda: order.append("A"), lambda: order.append("B")], 3, torch.device("cpu"))
    assert "".join(order) == "ABABABAB"
    assert [len(samples) for samples in seconds] == [3, 3]
    assert ratios([6.0, 8.0], [2.0, 4.0]) == [3.0, 2.0]


def test_timed_step_keeps_weights_and_moves_balance_state():
    experts = ExpertsConfig(n_experts=4, balance="bias")
    model = build_model(SHAPE, MethodConfig(name="mode", depth=DepthConfig(), experts=experts), 64)
    trainee = Trainee(model, TrainConfig(budget_flops=1.0), 32, torch.device("cpu"))
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    tokens = torch.randint(64, (2, T), generator=torch.Generator().manual_seed(0))
    fixed_batch(tokens, tokens, trainee.step)()
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    moved = {name.rpartition(".")[2] for name, buffer in model.named_buffers() if not buffer.equal(buffers[name])}
    assert moved == {"bias", "value", "updates"}


def test_peak_memory_is_repeatable_and_grows_with_the_batch():
    trainee = Trainee(_model("dense"), TrainConfig(budget_flops=1.0), 32, torch.device("cpu"))
    peaks = []
    for rows in (2, 2, 8):
        tokens = torch.randint(64, (rows, T))
        trainee.step(tokens, tokens, 0.0)
        peaks.append(peak_bytes(lambda t=tokens: trainee.step(t, t, 0.0), trainee.model, trainee.optimiser))
    kept = 12 * sum(p.numel() for p in trainee.model.parameters())
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)
    assert kept < peaks[0] < peaks[2]


def _plan(forward, batch_tokens):
    return Plan(SHAPE, SimpleNamespace(forward=forward, train=3 * forward), batch_tokens, 10, 1e9)


def test_speed_from_half_the_seconds_is_speedup_of_two():
    """Known seconds through the arithmetic of speed: which way round each ratio is, and in which units."""
    method, dense = _plan(forward=100.0, batch_tokens=50), _plan(forward=160.0, batch_tokens=50)
    seconds, baseline_seconds = [0.5, 0.4, 0.6], [1.0, 0.8, 1.2]
    speed = step_speed(method, seconds, matmul_flops=60_000.0, executed_flops=240.0)
    assert speed.train_step_seconds.median == 0.5 and speed.train_tokens_per_second == 100.0
    assert speed.flop_utilisation == pytest.approx(240.0 * 50 / 0.5 / 60_000.0) == 0.4
    compare_steps(speed, method, seconds, dense, baseline_seconds)
    assert speed.train_speedup_realised.median == 2.0
    assert speed.train_speedup_ideal == speed.forward_speedup_ideal == 1.6


def test_matmul_rate_equals_flops_over_best_seconds(monkeypatch):
    """The FLOPs are counted by torch's dispatcher as the product is taken; the seconds are given."""

    def timed(actions, rounds, device):
        for action in actions:
            action()
        return [[0.5, 0.25, 1.0] for _ in actions]

    monkeypatch.setattr(speed_of_steps, "interleave", timed)
    with FlopCounterMode(display=False) as counter:
        rate = speed_of_steps.matmul_rate(torch.device("cpu"), torch.float32)
    assert rate == counter.get_total_flops() / 0.25 > 0
