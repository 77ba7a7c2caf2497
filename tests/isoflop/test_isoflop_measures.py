"""The measurements of an isoFLOP study besides its runs: token statistics, step times, packing, energy; its plan."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from test_isoflop_grid import grid

from bench.errors import Interrupted, UserError
from bench.formats import duration
from bench.isoflop import study as isoflop
from bench.isoflop.run import packing, step_times, token_study
from bench.isoflop.run.plan import describe
from bench.isoflop.run.router_use import CLASSES, HeldOut, depth_use
from bench.isoflop.run.session import Session
from bench.isoflop.study import _first_packing
from bench.measure.machine import Machine, environment
from bench.records.isoflop import Packing, Study, TokenStudy, load_study
from bench.records.record import Timing
from bench.runs.pool import Pool, _Report, _Running
from bench.train.log import Progress

CPU = Machine(torch.device("cpu"), 1e11)


def study(**values) -> Study:
    return Study(name="made", created="2026-11-24", command="x", environment=environment(CPU.device),
                 methods=["dense", "mod"], budgets=[1e10], grid={}, **values)  # fmt: skip


class Recorder(Session):
    """A session that writes nothing; `saved` holds what `figure` was of each save."""

    def __init__(self, study, minutes=None, figure=lambda study: 0):
        super().__init__(study, None, minutes)
        self.figure, self.saved = figure, []

    def save(self):
        self.saved.append(self.figure(self.study))


def held_out(rng: np.random.Generator, documents: int, shared: float = 0.0, size: int = 200) -> HeldOut:
    """Tokens whose loss is noise, with a part of size `shared` common to the tokens of a document."""
    place = np.repeat(np.arange(documents), size)
    loss = rng.standard_normal(len(place)) + shared * rng.standard_normal(documents)[place]
    covariates = {"loss of the next token": loss, "frequency": rng.random(len(place)),
                  "position": np.tile(np.arange(size), documents).astype(float)}  # fmt: skip
    nothing = torch.zeros(documents, size)
    return HeldOut(nothing, nothing, place, rng.integers(0, len(CLASSES), len(place)), covariates)


def raw(use):
    return next(each for each in use.correlations if (each.layer, each.given) == ("all", "none"))


def test_depth_use_of_few_documents_has_no_interval():
    rng = np.random.default_rng(0)
    for documents in (1, 4):
        text = held_out(rng, documents)
        loss = text.covariates["loss of the next token"]
        use = depth_use({1: loss > 0}, text)
        found = raw(use)
        assert found.rho == pytest.approx(stats.spearmanr(loss > 0, loss)[0]) and found.rho > 0.8
        assert (found.low, found.high, found.p) == (None, None, None)
        assert all(profile.low is None for profile in use.profiles["position"])


def test_depth_use_of_a_constant_router_has_no_correlation():
    text = held_out(np.random.default_rng(0), 6)
    loss = text.covariates["loss of the next token"]
    use = depth_use({1: np.full(len(loss), True), 3: loss > 0}, text)
    assert {each.layer for each in use.correlations} == {"all", "3"} and use.layers == [1, 3]
    assert depth_use({1: np.full(len(loss), False)}, text).correlations == []


def test_depth_use_intervals_have_nominal_coverage():
    """Tokens of a document share noise on both sides; treated as independent, intervals would be far too narrow."""
    rng, held, significant = np.random.default_rng(1), 0, 0
    draws = 200
    for _ in range(draws):
        text = held_out(rng, 6, shared=1.0, size=60)
        luck = rng.standard_normal(6)[text.documents]
        found = raw(depth_use({1: rng.standard_normal(len(luck)) + luck > 0}, text))
        held += found.low <= 0 <= found.high
        significant += found.p < 0.05  # adjusted, so no more than that
    assert held >= 0.87 * draws
    assert significant <= 0.08 * draws


def test_depth_use_partial_correlation_removes_position():
    rng = np.random.default_rng(2)
    text = held_out(rng, 12)
    position = text.covariates["position"]
    text.covariates["loss of the next token"] = -position + 5 * rng.standard_normal(len(position))
    use = depth_use({1: position < 25, 3: position < 50}, text)
    own = {each.given: each for each in use.correlations if each.layer == "all" and "loss" in each.covariate}
    assert own["none"].low > 0.5 and own["none"].p < 0.001
    assert abs(own["position, frequency, kind"].rho) < 0.1
    assert [p.share for p in use.profiles["position"]] == sorted(
        (p.share for p in use.profiles["position"]), reverse=True
    )


def test_depth_use_p_is_of_t_with_one_degree_less_than_documents():
    text = held_out(np.random.default_rng(3), 5)
    found = raw(depth_use({1: text.covariates["loss of the next token"] > 1.5}, text))
    stderr = (found.high - found.rho) / stats.t.ppf(0.975, 4)
    tests = 2 * 4  # layers (one and all) x (3 covariates, one of them twice)
    assert found.p <= tests * 2 * stats.t.sf(found.rho / stderr, 4) * (1 + 1e-9)
    assert found.p >= 2 * stats.t.sf(found.rho / stderr, 4) * (1 - 1e-9)


def made_jobs():
    made = grid()
    return {
        (name, rung): made.job(made.methods[name], rung, 2e10, 0, 1e-3) for name in made.methods for rung in (0, 1)
    }  # fmt: skip


def test_time_steps_in_pairs_saves_each_and_repeats_none(monkeypatch):
    built, together = [], []

    def step(job, corpus, machine):
        built.append((job.config.method.name, job.config.model.d_model))
        return lambda: None

    def interleave(actions, rounds, device):
        together.append(len(actions))
        return [[2.0] * rounds, [4.0] * rounds][: len(actions)]

    monkeypatch.setattr(step_times, "_step", step)
    monkeypatch.setattr(step_times, "interleave", interleave)
    own = study()

    class Short(Recorder):
        def check(self):
            if len(self.saved) == 3:
                raise Interrupted

    short = Short(own, figure=lambda study: len(study.timings))
    with pytest.raises(Interrupted):
        step_times.time_steps(short, made_jobs(), None, CPU, 6)
    assert short.saved == [1, 2, 3] and together == [1, 1, 2]
    built.clear()
    step_times.time_steps(Recorder(own), made_jobs(), None, CPU, 6)
    assert built == [("mod", 24), ("dense", 24)]
    assert [(t.method, t.d_model) for t in own.timings] == [("dense", 16), ("dense", 24), ("mod", 16), ("mod", 24)]
    assert own.timings[0].over_dense is None and own.timings[-1].over_dense == Timing.of([0.5] * 6)
    done = Recorder(own, minutes=0.0)
    step_times.time_steps(done, made_jobs(), None, CPU, 6)
    assert done.saved == []


def test_measure_packing_saves_each_count_and_resumes(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(packing, "_measured", lambda jobs, machine, workers, threads: Packing(
        workers=workers, threads=threads, flops_per_second={1: 3.0, 2: 5.0, 4: 4.0}[workers]))  # fmt: skip
    own = study(packings=[Packing(workers=1, threads=4, flops_per_second=3.0)])
    session = Recorder(own, figure=lambda study: len(study.packings))
    packing.measure_packing(session, [], 1.0, CPU, None)
    assert session.saved == [2, 3] and [each.workers for each in own.packings] == [2, 4, 1]
    with pytest.raises(Interrupted):
        packing.measure_packing(Recorder(study(), minutes=0.0), [], 1.0, CPU, None)
    trained = Recorder(study(packings=own.packings[:1], training_seconds=1.0))
    packing.measure_packing(trained, [], 1.0, CPU, None)
    assert trained.saved == []


def test_measure_packing_puts_requested_workers_first(monkeypatch):
    measured = []

    def measure(jobs, machine, workers, threads):
        measured.append(workers)
        return Packing(workers=workers, threads=threads, flops_per_second=float(workers))

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(packing, "_measured", measure)
    own = study(packings=[Packing(workers=4, threads=1, flops_per_second=4.0)], training_seconds=1.0)
    session = Recorder(own, figure=lambda study: study.packings[0].workers)

    def chosen(workers: int | None) -> int:
        packing.measure_packing(session, [], 1.0, CPU, workers)
        return own.packings[0].workers

    assert chosen(None) == 4 and measured == []
    assert chosen(1) == 1 and measured == [1] and session.saved[-1] == 1  # as the message on a lack of memory advises
    assert chosen(4) == 4 and measured == [1]
    assert chosen(1) == 1 and measured == [1] and chosen(None) == 1


def test_packing_counts_on_a_gpu_are_limited_by_its_memory(monkeypatch):
    monkeypatch.setattr(packing, "memory_bytes", lambda device: 10e9)
    gpu = Machine(torch.device("cuda"), 1e14)
    assert packing._counts(gpu, 1e9, 16) == [1, 2, 4]
    assert packing._counts(gpu, 4e9, 16) == [1, 2]
    assert packing._counts(gpu, 40e9, 16) == [1]  # which the plan warns of
    assert packing._counts(CPU, 40e9, 16) == [1, 2, 4, 8, 16]


def test_pool_counts_every_step_as_training():
    job = next(iter(made_jobs().values()))
    pool = Pool(Packing(workers=1, threads=1, flops_per_second=1.0), CPU, "x", (1e9, 0.0), None)
    for first in (job.plan.step_flops, 10 * job.plan.step_flops):  # from the beginning, and resumed
        pool.running[0] = _Running(job)
        for steps, seconds in ((0, 2.0), (5, 7.0)):
            now = Progress(0.5, 3.0, 100, first + steps * job.plan.step_flops, seconds)
            assert not pool._handle(_Report(0, "progress", now))
        assert pool._handle(_Report(0, "done", seconds=7.5))  # the last steps had no report of their own
    assert pool.training_seconds == 7.5 + 5.5


def test_study_tokens_repeats_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(token_study, "load_run", lambda folder: pytest.fail("loaded again"))
    runs = {"mod": tmp_path / "mod-1"}
    found = TokenStudy(tokens=1, documents=9, statistic=token_study.STATISTIC, twin="dense-0", runs={"mod": "mod-1"}, 
                       kinds=[], depth={}, experts={}, settling={})  # fmt: skip
    late = Recorder(study(tokens=found), minutes=0.0)
    token_study.study_tokens(late, runs, {}, tmp_path / "dense-0", None, None)
    with pytest.raises(Interrupted):  # with another baseline: past the deadline it is not begun
        token_study.study_tokens(late, runs, {}, tmp_path / "dense-9", None, None)


def test_study_tokens_without_weights_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(token_study, "load_run", lambda folder: pytest.fail("loaded"))
    found = TokenStudy(tokens=1, documents=9, statistic="older", twin="dense-0", runs={"mod": "mod-0", "moe": "moe-0"},
                       kinds=[], depth={}, experts={}, settling={})  # fmt: skip
    own, runs = study(tokens=found), {"mod": tmp_path / "mod-0", "moe": tmp_path / "moe-0"}
    session = Recorder(own, figure=lambda study: pytest.fail("saved"))
    token_study.study_tokens(session, runs, {}, tmp_path / "dense-0", None, None)
    assert own.tokens == found and "moe-0 have no weights any more" in capsys.readouterr().out
    for folder in ("dense-0", "mod-0"):  # one method of three cannot be redone: none is
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").touch()
    token_study.study_tokens(session, runs, {}, tmp_path / "dense-0", None, None)
    assert own.tokens == found and "moe-0 has no weights any more" in capsys.readouterr().out


def test_tokens_are_of_a_successful_seed_with_weights(tmp_path, monkeypatch):
    made, asked, lost = grid(f"results_dir={tmp_path}"), {}, set()
    sizes = made.sizes({"dense": 1e-3, "mod": 1e-3})
    dense, mod = (sizes[name, made.budgets[-1]] for name in ("dense", "mod"))  # the smallest is the best
    own = [isoflop.run_folder(replace(mod[0].config, seed=seed)) for seed in range(3)]
    for seed, folder in enumerate(own):
        (folder / ("snapshots" if seed else "")).mkdir(parents=True)
        (folder / "model.safetensors").touch()
    rank = {folder: place for place, folder in enumerate(isoflop.run_folder(job.config) for job in (*dense, *mod))}
    monkeypatch.setattr(
        isoflop, "study_tokens", lambda _, runs, others, baseline, *__: asked.update(runs=runs, baseline=baseline)
    )

    def loss(config):
        folder = isoflop.run_folder(config)
        return None if folder in lost else rank.get(folder, 0)

    def studied(tokens=None):
        isoflop._tokens(Recorder(study(tokens=tokens)), made, sizes, loss, None)
        return asked["runs"].get("mod")

    assert studied() == own[1]
    lost.add(own[1])
    assert studied() == own[2]
    (own[2] / "model.safetensors").unlink()
    assert studied() == own[0]
    (own[0] / "model.safetensors").unlink()
    assert studied() is None
    earlier = TokenStudy(tokens=1, documents=9, statistic="any", twin="dense", runs={"mod": own[2].name}, kinds=[],
                         depth={}, experts={}, settling={})  # fmt: skip
    assert studied(earlier) == own[2]
    (same_shape,) = [isoflop.run_folder(job.config) for job in dense if job.config.model == mod[0].config.model]
    assert asked["baseline"] == same_shape != isoflop.run_folder(dense[0].config)
    lost.add(same_shape)
    studied()
    assert asked["baseline"] == isoflop.run_folder(dense[0].config)


def test_session_save_adds_up_the_time_of_all_sessions(tmp_path):
    def recorded(earlier: Study | None) -> float | None:
        Session(study(), tmp_path, earlier=earlier).save()
        return load_study(tmp_path / "isoflop.json").study_seconds

    assert 0.0 <= recorded(None) < 1.0
    assert 100.0 <= recorded(study(study_seconds=100.0, worker_seconds=50.0)) < 101.0
    assert 0.0 <= recorded(study()) < 1.0
    assert recorded(study(worker_seconds=50.0)) is None  # by an older version, which did not record it
    own = study(study_seconds=100.0, worker_seconds=160.0, training_seconds=150.0,
                packings=[Packing(workers=2, threads=1, flops_per_second=1.0)])  # fmt: skip
    words = own.shares(recorded=150.5)
    assert "94% of the training pool" in words and "75% of the whole study" in words
    own.packings[0].workers = 1
    assert "94% of the training pool" in own.shares(150.0) and "the number of concurrent runs changed" in own.shares(
        150.0
    )


def test_shares_are_absent_where_sessions_were_not_recorded():
    own = study(worker_seconds=9461.0, training_seconds=8687.0)
    assert "92% of the training pool" in own.shares(recorded=8687.0)
    words = own.shares(recorded=14558.0)
    assert "%" not in words and "243 minutes" in words and "145" in words and "some sessions were not recorded" in words


def test_plan_names_its_device_and_what_does_not_fit():
    here = describe(grid(), CPU, None)
    assert "on this machine" in here and "20% of 100 GFLOP/s" in here and "warning" not in here
    assert "concurrent runs together" in here and "assumed" in here
    assert "training steps only" in here and "step times" in here
    values = ("name=a small GPU", "matmul_flops=1e12", "utilisation=0.25", "memory_bytes=1e6")
    planned = [f"study.grid.planned_for.{value}" for value in values]
    there = describe(grid(*planned), CPU, Packing(workers=2, threads=1, flops_per_second=1e9))
    assert "on a small GPU" in there and "25% of 1,000 GFLOP/s" in there
    assert "warning: 12 of 12 runs need more" in there
    for wrong in (planned[:2], [*planned, "study.grid.planned_for.utilisation=2"]):
        with pytest.raises(UserError, match="planned_for"):
            grid(*wrong)


def test_plan_uses_the_measured_throughput_of_concurrent_runs():
    two = Packing(workers=2, threads=1, flops_per_second=2e9)
    words = describe(grid(), CPU, two)
    flops = sum(flops for _, flops in grid().planned_flops().values())
    row = next(line for line in words.splitlines() if line.startswith("all"))
    assert row.endswith(duration(flops / 2e9)) and "2 concurrent runs at 2 GFLOP/s together (measured)" in words
    one = two.model_copy(update={"workers": 1})
    earlier = study(packings=[two, one])
    assert _first_packing(grid(), earlier) is two and _first_packing(grid("study.grid.workers=1"), earlier) is one
    assert _first_packing(grid("study.grid.workers=4"), earlier) is None and _first_packing(grid(), None) is None


def test_energy_is_recorded_only_of_a_run_alone_on_its_device(tmp_path, monkeypatch):
    from bench.config.compose import configure
    from bench.data import prepare
    from bench.runs import run as module
    from bench.runs.prepared import prepare_run

    counter = iter(range(0, 10_000, 100))
    monkeypatch.setattr(module, "joules", lambda device: float(next(counter)))
    words = ["+method=dense", "model.n_layers=1", "model.d_model=16", "model.n_heads=1", "model.context=32",
             "train.batch_size=4", "train.budget_flops=2e7", "evaluate.validation_tokens=500",
             "evaluate.timing_steps=0", "evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]", "train.device=cpu",
             f"results_dir={tmp_path}"]  # fmt: skip

    def made(seed: int, **values):
        config = configure([*words, f"seed={seed}"])
        return module.run(prepare_run(config), prepare(config.data), CPU, "x", show=lambda progress: None, **values)

    own = made(0)
    assert own.energy is not None and own.energy.joules_per_token == pytest.approx(100 / own.training.tokens)
    assert made(1, alone=False).energy is None
    folder = prepare_run(configure([*words, "seed=2"])).folder
    monkeypatch.setattr(module, "train", lambda *given: (_ for _ in ()).throw(Interrupted()))
    with pytest.raises(Interrupted):
        made(2)
    monkeypatch.undo()
    monkeypatch.setattr(module, "joules", lambda device: float(next(counter)))
    (folder / "checkpoint.json").write_text(json.dumps({}))
    monkeypatch.setattr(module.checkpoint, "load", lambda *given: None)
    assert made(2).energy is None
