"""Training: budgets, determinism, checkpoints, and what happens when it goes wrong. Real text, tiny shapes."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter

from bench.config.compose import configure
from bench.config.schema import TrainConfig
from bench.data import Batches, prepare
from bench.errors import Interrupted, UserError
from bench.flops.match import plan
from bench.methods import build_model
from bench.records.record import load_record
from bench.train import checkpoint
from bench.train.loop import Budget, train
from bench.train.optimiser import clip, make_optimiser, peak_lr, schedule
from bench.train.step import Trainee

torch.set_num_threads(1)
TINY = [
    "model.n_layers=2",
    "model.d_model=32",
    "model.n_heads=2",
    "model.context=32",
    "train.batch_size=4",
    "train.budget_flops=6e8",
    "train.threads=1",
    "evaluate.validation_tokens=2000",
    "evaluate.timing_steps=2",
    "evaluate.tasks=[]",
    "seeds=1",
    "evaluate.speed_shape=null",
    "train.lr_final=0.1",
]
COUNTERS = {"step": 3, "flops": 1e6, "seconds": 0.5, "losses": [5.5, 5.4, 5.3], "first": 5.5, "best": None}
OWNER = checkpoint.Owner("own", "text")
METHODS = {
    "dense": [],
    "mod": [],
    "mod_random": [],
    "moe": ["method.experts.balance=bias"],
    "mode": ["method.variant=integrated"],
}


def _config(method, *more):
    return configure([f"+method={method}", *TINY, *METHODS.get(method, []), *more])


def _train(config, folder, stop_after=None):
    """Train to the end of the budget, or to `stop_after` of it and leave a checkpoint."""
    folder.mkdir(exist_ok=True)
    corpus = prepare(config.data)
    solved = plan(config, 256)
    model = build_model(solved.model, config.method, 256, config.seed)
    torch.manual_seed(config.seed)
    trainee = Trainee(model, config.train, 32, torch.device("cpu"))
    batches = Batches(corpus.train, 32, 4, config.seed)
    budget = Budget(solved.budget_flops)
    if stop_after is not None:
        _interrupt_after(trainee, stop_after)
    try:
        trained = train(trainee, batches, solved, budget, folder, OWNER, lambda progress: None)
    except Interrupted:
        trained = None
    with open(folder / "steps.csv", newline="") as file:
        return trained, trainee, [row["loss"] for row in csv.DictReader(file)], solved


def _interrupt_after(trainee, steps):
    """Send the process a real SIGINT in the middle of a step."""
    update, done = trainee.update, [0]

    def counted():
        done[0] += 1
        if done[0] == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return update()

    trainee.update = counted


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_loss_falls_on_real_text(method, tmp_path):
    _, _, losses, _ = _train(_config(method, "train.budget_flops=3e9", "train.lr=0.01"), tmp_path)
    assert float(losses[-1]) < float(losses[0]) - 1.0


@pytest.mark.parametrize("method", list(METHODS))
def test_executed_budget_is_met_within_a_step(method, tmp_path):
    trained, _, _, solved = _train(_config(method), tmp_path)
    assert abs(trained.flops - solved.budget_flops) <= 0.6 * solved.step_flops


def test_budget_of_seconds_stops_in_time(tmp_path):
    config = _config("dense")
    corpus, solved = prepare(config.data), plan(config, 256)
    trainee = Trainee(build_model(solved.model, config.method, 256), config.train, 32, torch.device("cpu"))
    budget = Budget(solved.budget_flops, seconds=0.3)
    trained = train(trainee, Batches(corpus.train, 32, 4, 0), solved, budget, tmp_path, OWNER, lambda progress: None)
    assert trained.steps > 1
    rates = _rates(tmp_path)
    assert rates[0] > 0 and rates[-1] < trainee.peak_lr
    assert abs(trained.seconds - 0.3) < max(0.3, 5 * trained.seconds / trained.steps)


@pytest.mark.parametrize("steps", [8.4, 8.6])  # whole steps end beyond the budget, or short of it
@pytest.mark.parametrize("method", ["dense", "mode"])
def test_rate_reaches_its_end_on_the_last_step(method, steps, tmp_path):
    budget = steps * plan(_config(method), 256).step_flops
    trained, trainee, _, _ = _train(_config(method, f"train.budget_flops={budget}"), tmp_path)
    rates = _rates(tmp_path)
    assert len(rates) == trained.steps and rates[0] > 0
    assert rates[-1] == pytest.approx(0.1 * trainee.peak_lr, rel=1e-4)
    assert all(rate > rates[-1] for rate in rates[:-1])
    if method == "dense":
        assert trained.steps == round(steps)


def _rates(folder):
    with open(folder / "steps.csv", newline="") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def test_budget_of_steps_is_kept_whatever_routing_executes(tmp_path):
    config = _config("mode")
    solved = plan(config, 256)
    trainee = Trainee(build_model(solved.model, config.method, 256), config.train, 32, torch.device("cpu"))
    budget = Budget(0.5 * solved.budget_flops, steps=7)
    batches = Batches(prepare(config.data).train, 32, 4, 0)
    trained = train(trainee, batches, solved, budget, tmp_path, OWNER, lambda progress: None)
    assert trained.steps == 7 and trained.flops != 7 * solved.step_flops
    assert _rates(tmp_path)[-1] == pytest.approx(0.1 * trainee.peak_lr, rel=1e-4)


@pytest.mark.parametrize("method", list(METHODS))
def test_interrupted_run_resumes_to_the_same_result(method, tmp_path):
    whole, unbroken, losses, _ = _train(_config(method), tmp_path / "whole")
    stopped, _, _, _ = _train(_config(method), tmp_path / "broken", stop_after=whole.steps // 2)
    assert stopped is None and (tmp_path / "broken" / "checkpoint.json").exists()
    resumed, continued, again, _ = _train(_config(method), tmp_path / "broken")
    assert again == losses
    assert (resumed.steps, resumed.flops) == (whole.steps, whole.flops)
    for (name, one), (_, other) in zip(
        unbroken.model.state_dict().items(), continued.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def _checkpoint(folder):
    config = _config("dense")
    model = build_model(config.model, config.method, 256)
    optimiser = make_optimiser(model, config.train, 1e-3)
    checkpoint.save(folder, model, optimiser, COUNTERS, OWNER)
    return model, optimiser


def test_truncated_checkpoint_is_refused_in_one_line(tmp_path):
    model, optimiser = _checkpoint(tmp_path)
    path = tmp_path / "checkpoint-3.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged.*Delete") as caught:
        checkpoint.load(tmp_path, model, optimiser, OWNER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [
    {"losses": None}, {"losses": 3}, {"losses": ["x"]}, {"flops": "many"}, {"flops": float("nan")}, {"step": -1},
    {"seconds": None}, {"tensors": None}, {"tensors": 7}, {"config_hash": None},
])  # fmt: skip
def test_edited_checkpoint_is_refused_in_one_line(damage, tmp_path):
    model, optimiser = _checkpoint(tmp_path)
    path = tmp_path / "checkpoint.json"
    damaged = json.loads(path.read_text()) | damage | {"digest": None}  # which would notice any of them
    path.write_text(json.dumps({key: value for key, value in damaged.items() if value is not None}))
    with pytest.raises(UserError, match="damaged.*Delete") as caught:
        checkpoint.load(tmp_path, model, optimiser, OWNER)
    assert "\n" not in str(caught.value)


def _stopped(folder):
    """A run that was interrupted half way."""
    config = _config("dense")
    _train(config, folder, stop_after=plan(config, 256).steps // 2)
    return folder / "checkpoint.json", next(folder.glob("checkpoint-*.safetensors"))


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[at : at + 4] = bytes(byte ^ 0xFF for byte in content[at : at + 4])
    path.write_bytes(content)


def _edit(**changes):
    return lambda index, _: index.write_text(json.dumps(json.loads(index.read_text()) | changes))


def _forged(**changes):
    """Edited by someone who knows of the digest."""
    return _edit(**changes, digest=None)


DAMAGE = {
    "bytes of a tensor": (lambda _, tensors: _flip(tensors, tensors.stat().st_size - 4000), "its checksum"),
    "bytes of the index": (lambda index, _: _flip(index, 8), "damaged"),
    "flops": (_edit(flops=1e300), "its digest"),
    "step": (_edit(step=999_999_999_999), "its digest"),
    "loss": (_edit(losses=[0.1]), "its digest"),
    "forged flops": (_forged(flops=1e300), "more than the 6e.08 planned"),
    "forged step": (_forged(step=999_999_999_999), "not that of its optimiser"),
    "no log": (lambda index, _: (index.parent / "steps.csv").unlink(), "steps.csv is not the log"),
    "bytes of the log": (lambda index, _: _flip(index.parent / "steps.csv", 100), "steps.csv is not the log"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    return _stopped(tmp_path_factory.mktemp("stopped") / "run")[0].parent


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_checkpoint_is_never_resumed(name, stopped, tmp_path):
    harm, said = DAMAGE[name]
    shutil.copytree(stopped, tmp_path / "run")
    harm(tmp_path / "run" / "checkpoint.json", next((tmp_path / "run").glob("*.safetensors")))
    with pytest.raises(UserError, match=f"{said}.*Delete .*run to train from the start") as caught:
        _train(_config("dense"), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    model, optimiser = _checkpoint(tmp_path)
    with pytest.raises(UserError, match="belongs to another configuration"):
        checkpoint.load(tmp_path, model, optimiser, checkpoint.Owner("other", "text"))


def test_checkpoint_of_other_text_is_refused(tmp_path):
    model, optimiser = _checkpoint(tmp_path)
    with pytest.raises(UserError, match="other text: it has changed since. Delete"):
        checkpoint.load(tmp_path, model, optimiser, checkpoint.Owner("own", "rewritten"))
    path = tmp_path / "checkpoint.json"
    later = ("corpus_fingerprint", "digest")  # keys that older checkpoints lack
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in later}))
    assert checkpoint.load(tmp_path, model, optimiser, OWNER) == COUNTERS


def test_step_log_survives_a_kill_after_resuming(tmp_path):
    """The kill is a step that never returns: nothing is closed or flushed, as after SIGKILL."""
    whole, _, losses, _ = _train(_config("dense"), tmp_path / "whole")
    half = whole.steps // 2
    _train(_config("dense"), tmp_path / "broken", stop_after=half)
    log = tmp_path / "broken" / "steps.csv"
    before = log.read_bytes()
    script = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_training as t
t.Trainee.step = lambda *_: os._exit(9)
t._train(t._config("dense"), Path({str(log.parent)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert log.read_bytes() == before and before.count(b"\n") == half + 1
    log.write_bytes(before + b"999")  # a row that the kill cut short
    _, _, again, _ = _train(_config("dense"), log.parent)
    assert again == losses


def test_full_disk_under_the_step_log_names_the_file(tmp_path):
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_training as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
try:
    t._train(t._config("dense"), Path({str(tmp_path)!r}))
except t.UserError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert len(told) == 1, done.stderr
    assert f"cannot write {tmp_path / 'steps.csv'}: File too large. Free some space" in told[0]


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_training import COUNTERS, OWNER, UserError, _checkpoint, checkpoint
folder = Path({str(tmp_path)!r})
model, optimiser = _checkpoint(folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    checkpoint.save(folder, model, optimiser, COUNTERS | {{"step": 4}}, OWNER)
except UserError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "refused: cannot write" in done.stdout, done.stderr
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 3
    assert load_file(tmp_path / "checkpoint-3.safetensors")
    assert not list(tmp_path.glob(".*.tmp"))


def test_schedule_warms_up_and_decays_to_lr_final():
    config = TrainConfig(budget_flops=1.0, warmup=0.1, lr_final=0.2)
    assert schedule(0.05, config) == pytest.approx(0.5)
    assert schedule(0.1, config) == pytest.approx(1.0)
    assert schedule(0.55, config) == pytest.approx(0.6)
    assert schedule(1.0, config) == pytest.approx(0.2)
    assert schedule(1.3, config) == pytest.approx(0.2)


def test_schedule_with_lr_final_of_one_is_constant():
    config = TrainConfig(budget_flops=1.0, warmup=0.1, lr_final=1.0)
    assert [schedule(share, config) for share in (0.1, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_learning_rate_follows_the_width_rule():
    config = TrainConfig(budget_flops=1.0)
    assert peak_lr(config, 512)[0] == pytest.approx(peak_lr(config, 128)[0] / 2)
    assert peak_lr(config, 512)[1] == f"rule: {config.lr_at_128:g} x sqrt(128 / d_model)"  # other runs may have others
    assert peak_lr(TrainConfig(budget_flops=1.0, lr=0.7), 512)[0] == 0.7


def test_clip_with_large_predictor_gradient_keeps_the_model_step():
    config = _config("mod")
    model = build_model(config.model, config.method, 256)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 1e3 if "causal_router" in name else 1e-4)
    before = model.embedding.weight.grad.clone()
    norm = clip(model, 1.0)
    assert norm < 1.0
    assert torch.equal(model.embedding.weight.grad, before)
    predictors = [p.grad for n, p in model.named_parameters() if "causal_router" in n]
    assert torch.cat([g.flatten() for g in predictors]).norm() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("budget", "said"), [("3e9", "the loss became NaN at step"), ("3e7", "NaN after step 1")])
def test_nan_loss_stops_the_run_with_message_and_record(tmp_path, budget, said):
    words = ["+method=dense", *TINY, "train.lr=1e40", "train.grad_clip=1e30", f"train.budget_flops={budget}"]
    words += ["name=nan", "evaluate.timing_steps=0"]
    folders = [f"results_dir={tmp_path}/results", f"reports_dir={tmp_path}/reports"]
    done = subprocess.run([sys.executable, "-m", "bench", *words, *folders], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stdout
    (path,) = (tmp_path / "results").glob("nan/*/record.json")
    record = load_record(path)
    assert record.run.status == "diverged" and not record.comparable
    assert record.quality is None


@pytest.mark.parametrize("steps", [1, 40])
def test_finite_explosion_is_a_divergence(steps, tmp_path):
    """At once, when only the weights after the last step show it; and in the losses of a longer run."""
    budget = steps * plan(_config("dense"), 256).step_flops
    trained, _, losses, _ = _train(_config("dense", "train.lr=10", f"train.budget_flops={budget}"), tmp_path)
    assert trained.steps == steps == len(losses)
    assert "of a uniform guess" in trained.diverged


@pytest.mark.parametrize("words", [["train.budget_flops=4e7"], ["train.lr=1e-9"], ["train.lr=0.02"]])
def test_short_or_slow_run_is_no_divergence(words, tmp_path):
    assert _train(_config("dense", *words), tmp_path)[0].diverged is None


def test_ctrl_c_prints_a_command_that_resumes(tmp_path):
    words = ["+method=dense", *TINY, "train.budget_flops=2e10", "name=stopped"]
    words += [f"results_dir={tmp_path}/results", f"reports_dir={tmp_path}/reports"]
    process = subprocess.Popen([sys.executable, "-m", "bench", *words], stderr=subprocess.PIPE, text=True)
    log = None
    for _ in range(600):
        log = next((tmp_path / "results").glob("stopped/*/steps.csv"), None)
        if log is not None:
            break
        time.sleep(0.1)
    assert log is not None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "python -m bench +method=dense" in said and "Traceback" not in said
    assert (log.parent / "checkpoint.json").exists()
    again = subprocess.run([sys.executable, "-m", "bench", *words], capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    record = load_record(log.parent / "record.json")
    assert record.run.status == "finished"
    assert not (log.parent / "checkpoint.json").exists()


WARMED = {
    "mod": [],
    "mod_random": [],
    "moe": ["method.experts.balance=bias"],
    "expert_choice": [],
    "mode": ["method.variant=integrated"],
}


def _in_training(method):
    """A trainee after two steps, and the batches it goes on with."""
    config = _config(method, *WARMED[method])
    torch.manual_seed(0)
    trainee = Trainee(build_model(config.model, config.method, 256), config.train, 32, torch.device("cpu"))
    batches = Batches(prepare(config.data).train, 32, 4, 0)
    for number in range(2):
        trainee.step(*batches.at(number), 1e-3)
    return trainee, batches


def _everything(trainee):
    """All that the next step depends on."""
    named = dict(trainee.model.named_parameters()) | dict(trainee.model.named_buffers())
    moments = {(n, key): value for n, s in enumerate(trainee.optimiser.state.values()) for key, value in s.items()}
    kept = {key: value.detach().clone() for key, value in (named | moments).items()}
    return kept | {"random": torch.get_rng_state()}


@pytest.mark.parametrize("method", list(WARMED))
def test_warm_up_leaves_all_state_bit_for_bit(method):
    cold, batches = _in_training(method)
    wanted = cold.step(*batches.at(2), 1e-3)
    trainee, _ = _in_training(method)
    before = _everything(trainee)
    trainee.warm_up(*batches.at(2))
    after = _everything(trainee)
    assert before.keys() == after.keys()
    assert [key for key, value in before.items() if not torch.equal(value, after[key])] == []
    assert all(parameter.grad is None for parameter in trainee.model.parameters())
    assert trainee.step(*batches.at(2), 1e-3) == wanted


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_compilation_is_not_in_step_seconds(method, monkeypatch, tmp_path):
    compiled = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiled))
    step, counts = Trainee.step, []

    def counted(*arguments):
        counts.append(compiled.frame_count)
        report = step(*arguments)
        counts.append(compiled.frame_count)
        return report

    monkeypatch.setattr(Trainee, "step", counted)
    trained, _, losses, _ = _train(_config(method, "train.compile=true"), tmp_path / "compiled")
    assert len(counts) == 2 * trained.steps > 2
    assert set(counts) == {compiled.frame_count} != {0}
    _, _, eager, _ = _train(_config(method), tmp_path / "eager")
    assert [float(loss) for loss in losses] == pytest.approx([float(loss) for loss in eager], abs=1e-3)


def test_every_model_of_a_process_is_compiled(monkeypatch):
    compiled = CompileCounter()  # counts graphs, and runs them as they are
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiled))
    tokens = torch.arange(16).view(2, 8)
    timed = []
    for width in range(8, 28, 2):  # 10 shapes; torch by itself stops at 8
        model = build_model(configure(["+method=dense", *TINY, "model.n_heads=1", f"model.d_model={width}"]).model,
                            configure(["+method=dense"]).method, 32, 0)  # fmt: skip
        timed.append(Trainee(model, TrainConfig(budget_flops=1.0, compile=True), width, torch.device("cpu")))
        before = compiled.frame_count
        timed[-1].step(tokens, tokens, 0.0)
        assert compiled.frame_count > before, f"width {width} ran without being compiled"
    before = compiled.frame_count
    for trainee in timed:  # in turn, as speeds are timed: what was compiled stays so
        trainee.step(tokens, tokens, 0.0)
    assert compiled.frame_count == before
