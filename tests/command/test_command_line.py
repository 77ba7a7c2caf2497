"""`python -m bench` as a person uses it: one line for a mistake, a record and a report for a run."""

import csv
import glob
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.config.compose import configure, expand
from bench.config.identity import comparison_hash, config_hash
from bench.config.options import options
from bench.data import prepare
from bench.errors import UserError
from bench.flops.match import dense_baseline, plan
from bench.measure.resources import peak_bytes
from bench.methods import build_model
from bench.records.files import write_atomically
from bench.records.record import load_record
from bench.runs.dry_run import describe, training_memory
from bench.train.step import Trainee

CACHE = f"data.cache_dir={Path(__file__).resolve().parents[2] / '.cache' / 'bench'}"  # shared: no text is read twice
TINY = [
    "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=64", "train.batch_size=4",
    "train.budget_flops=3e9", "train.threads=1", "evaluate.validation_tokens=12000", "evaluate.timing_steps=2",
    "evaluate.limit=8",
    "seeds=1", "evaluate.speed_shape=null", CACHE,
]  # fmt: skip


LONG = ["model.context=16000000", "train.budget_flops=1e23", "evaluate.decode_batch_sizes=[]"]  # longer than the text


def _bench(*words, cwd):
    return subprocess.run([sys.executable, "-m", "bench", *words], capture_output=True, text=True, cwd=cwd)


MISTAKES = {
    "unknown method": (["+method=foo"], "method=foo is unknown; choose from dense"),
    "unknown key": (["+method=mod", "model.d_modle=3"], "unknown key model.d_modle; did you mean model.d_model"),
    "unknown option": (["+method=mod", "scale=huge"], "scale=huge is unknown; choose from"),
    "wrong type": (["+method=mod", "model.d_model=abc"], "model.d_model=abc is not allowed"),
    "no method": (["seed=3"], "no method chosen"),
    "heads": (["+method=mod", "model.n_heads=5"], "model.n_heads=5 does not divide model.d_model=24"),
    "kv heads": (["+method=mod", "model.n_kv_heads=3"], "model.n_kv_heads=3 does not divide"),
    "capacity 0": (["+method=mod", "method.depth.capacity=0"], "method.depth.capacity=0"),
    "capacity 2": (["+method=mod", "method.depth.capacity=2"], "at most 1"),
    "top_k": (["+method=moe", "method.experts.top_k=9"], "method.experts.top_k=9 is more than the 8"),
    "no such axis": (["+method=dense", "method.depth.capacity=0.3"], "this method has no method.depth"),
    "variant": (["+method=mode", "method.variant=x"], "one of staged, integrated"),
    "choice": (["+method=mod", "method.depth.causal=magic"], "one of predictor, bce"),
    "sweep without -m": (["+method=mod", "seed=1,2"], "a sweep needs -m"),
    "no value": (["+method=mod", "seed"], "cannot read seed: write KEY=VALUE"),
    "name": (["+method=mod", "name=../up"], "plain folder name"),
    "data name": (["+method=mod", "data.name=a/../../x"], "data.name='a/../../x' must be a plain folder name"),
    "budget": (["+method=mod", "train.budget_flops=1e5"], "less than one step"),
    "context": (["+method=mod", *LONG], "model.context"),
    "decoding": (["+method=mod", "model.context=2"], "at least 3, or evaluate.decode_batch_sizes=[]"),
    "missing file": (["+method=mod", "data=text", "data.train=[none.txt]"], "none.txt"),
    "no files": (["+method=mod", "data=text"], "data.train is empty"),
    "no device": (["+method=mod", "train.device=tpu"], "one of auto, cpu, cuda"),
    "mps": (["+method=mod", "train.device=mps"], "train.device=mps is not allowed: it must be one of auto, cpu, cuda."),
    "infinite": (
        ["+method=mod", "train.budget_flops=inf"],
        "train.budget_flops=inf is not allowed: it must be",
    ),
    "not a number": (["+method=mod", "model.norm_eps=nan"], "model.norm_eps=nan"),
    "threads": (
        ["+method=mod", "train.threads=100000000"],
        "train.threads=100000000 is not allowed",
    ),
    "layers": (["+method=mod", "model.n_layers=1000000000000"], "it must be at most 10000"),
    "width": (["+method=mod", "model.d_ff=99999999999999999999999"], "model.d_ff="),
    "seed": (["+method=mod", "seed=99999999999999999999999999"], "seed=9999"),
    "nothing routed": (["+method=mod", "method.depth.every=100"], "routes none of the 4 layers"),
    "added key": (["+method=mod", "+train.lrr=1"], "unknown key train.lrr; did you mean train.lr"),
    "added key of ours": (["+method=mod", "++foo=1"], "unknown key foo"),
    "no group": (["+method=mod", "scale=null"], "choose scale from base, large, small, tiny"),
    "group twice": (["+method=mod", "+method=dense"], "method is given more than once"),
    "left out": (["+method=mod", "~model"], "a key cannot be deleted"),
    "renamed": (["+method=mod", "method.name=../../x"], "method.name=../../x is not allowed"),
    "no such sweep": (["-m", "+method=mod", "seed=interval(1,2)"], "cannot be swept"),
    "empty sweep": (["-m", "+method=mod", "seed=range(1,1)"], "lists no value"),
    "endless sweep": (["-m", "+method=mod", "seed=range(0,1e9)"], "runs; at most 10,000"),
    "swept studies": (["-m", "+study=ci,decode", "dry_run=true"], "a study cannot be swept"),
    "swept study": (["-m", "+study=isoflop", "seed=0,1", "dry_run=true"], "a study cannot be swept"),
    "task": (["+method=mod", "evaluate.tasks=[nope]"], "evaluate.tasks: nope is unknown"),
    "reports": (["+method=mod", "reports_dir=/proc/none", *TINY], "Set reports_dir to another folder"),
    "study plan": (["+study=step_time", "dry_run=true"], "plans training runs, and this study has none"),
    "rounds": (["+study=step_time", "study.rounds=0"], "study.rounds=0"),
    "tokenizer": (
        ["+method=mod", "data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=10", "dry_run=true"],
        "need 257",
    ),
    "heads of one": (["+method=mod", "model.n_heads=24"], "one of model.n_heads=1, 2, 3, 4, 6, 12 would work"),
    "hidden": (
        ["+method=moe", "method.experts.hidden=5"],
        "method.experts.hidden=5 is not allowed: it must be a multiple",
    ),
    "long name": (["+method=mod", f"name={'x' * 300}"], "name is 300 bytes long"),
    "final rate": (["+method=mod", "train.lr_final=1.5"], "train.lr_final=1.5 is not allowed"),
    "shallow solved": (["+method=shallow", "contract=forward_flops"], "method.layers=0.5625 (shallow) sets"),
    "results": (["+method=mod", "results_dir=/proc/none", *TINY], "cannot write to /proc/none"),
    "results a file": (["+method=mod", f"results_dir={__file__}"], "is a file, not a folder. Set results_dir"),
    "last of a sweep": (["-m", "+method=dense,mod", "seed=0,x", *TINY], "seed=x is not allowed"),
    "option": (["--foo"], "unknown option --foo; python -m bench --help"),
    "misspelt option": (["--confg-dir", "x"], "did you mean --config-dir?"),
    "key as an option": (["+method=mod", "--train.lr=3"], "write a key without dashes: train.lr=VALUE"),
    "option of Hydra's": (["--config-path", "x"], "--config-path is a Hydra option"),
    "option without value": (["--cfg", "-m", "+method=mod"], "--cfg needs a value"),
    "value of a flag": (["+method=mod", "--multirun=3"], "--multirun takes no value"),
    "configuration of Hydra": (["+method=mod", "--cfg", "hydra"], "use --cfg job"),
    "information": (["+method=mod", "--info=nope"], "choose from all, config, defaults, defaults-tree"),
    "configuration folder": (["+method=mod", "--config-dir", "none"], "--config-dir none: there is no such folder"),
    "configuration file": (["+method=mod", "--config-name", "none"], "there is no none.yaml in"),
    "shell": (["--shell-completion", "install=csh"], "SHELL is bash, zsh or fish"),
}


@pytest.fixture(scope="module", autouse=True)
def _text_is_prepared():
    """So that no progress of reading it stands beside a message."""
    prepare(configure(["+method=dense", CACHE]).data)


@pytest.mark.parametrize("words,message", MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_line_and_creates_nothing(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    assert main(words if CACHE in words else [*words, CACHE]) == 2
    signal.signal(signal.SIGTERM, before)
    written = capfd.readouterr().err
    errors = [line for line in written.splitlines() if line]
    assert len(errors) == 1 and errors[0].startswith("error: "), written
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_mistake_on_the_command_line_is_exit_status_2(tmp_path):
    done = _bench("+method=mod", "model.n_heads=5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: model.n_heads=5 does not divide") and done.stderr.count("\n") == 1


def test_mistake_in_a_value_imports_no_torch():
    mistake = "import sys; from bench.__main__ import main; main(['+method=mod', 'model.n_heads=5'])"
    code = f"{mistake}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_bare_command_and_help_list_the_methods(tmp_path):
    bare, asked = _bench(cwd=tmp_path), _bench("--help", cwd=tmp_path)
    assert (bare.returncode, asked.returncode) == (2, 0)
    for method in options("method"):
        assert method in bare.stderr and method in asked.stdout
    assert max(map(len, asked.stdout.splitlines())) <= 80


@pytest.mark.parametrize("method", options("method"))
@pytest.mark.parametrize("scale", options("scale"))
def test_every_method_configures_at_every_scale(method, scale):
    config = configure([f"+method={method}", f"scale={scale}"])
    assert (config.method.name, config.scale) == (method, scale)


def test_sweep_is_multiplied_out():
    runs = expand(["method=dense,mod", "seed=0,1", "data=kjv"], multirun=True)
    assert [run[:2] for run in runs] == [
        ["+method=dense", "seed=0"], ["+method=dense", "seed=1"], ["+method=mod", "seed=0"], ["+method=mod", "seed=1"],
    ]  # fmt: skip


def test_hashes_change_with_what_changes_a_result():
    base = configure(["+method=mod"])
    for same in ("name=other", "results_dir=elsewhere", "reports_dir=elsewhere", "data.cache_dir=x"):
        assert config_hash(configure(["+method=mod", same])) == config_hash(base)
    for other in ("seed=1", "model.d_model=64", "method.depth.capacity=0.5", "evaluate.limit=3", "train.lr=1"):
        assert config_hash(configure(["+method=mod", other])) != config_hash(base)
    for alike in (["+method=moe"], ["+method=mod", "seed=7"]):
        assert comparison_hash(configure(alike)) == comparison_hash(base)
    assert comparison_hash(configure(["+method=mod", "train.budget_flops=1e9"])) != comparison_hash(base)


def test_dry_run_prints_the_plan_and_trains_nothing(tmp_path):
    done = _bench("+method=mod", "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for figure in ("parameters", "forward FLOPs/token", "steps", "tokens", "time", "memory"):
        assert figure in done.stdout
    assert list(tmp_path.iterdir()) == []


def _dry_run(*words):
    """The dry run's table: figure -> cells of baseline and method."""
    lines = describe(configure([*words, "train.device=cpu", "dry_run=true"])).splitlines()
    return {cells[0]: cells[1:] for line in lines if len(cells := re.split(r"  +", line)) == 3}


def test_dry_run_prints_layers_and_flop_ratio_of_the_method():
    said = _dry_run("+method=shallow")
    assert said["layers"] == ["4", "2"]
    dense, own = (float(cell.replace(",", "")) for cell in said["forward FLOPs/token"])
    assert [float(cell) for cell in said["forward FLOPs over dense's"]] == [1.0, pytest.approx(own / dense, abs=1e-4)]
    whole, fewer = (float(cell.split()[0]) for cell in said["training memory (at most)"])
    assert fewer < 0.6 * whole


def test_dry_run_plans_for_the_vocabulary_and_passes_of_the_text(tmp_path):
    """A BPE on little text is far smaller than configured, and little text is read many times."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"Lantern {number} of the quiet harbour." for number in range(300)))
    words = ["+method=mod", "data=text", f"data.train=[{tmp_path / 'a.txt'}]", f"data.cache_dir={tmp_path / 'cache'}"]
    said = describe(configure([*words, "train.device=cpu"]))
    corpus = prepare(configure(words).data)
    size = corpus.tokenizer.vocab_size
    assert size < 2000
    assert f"Text: {corpus.train_tokens:,} training tokens, a vocabulary of {size:,}." in said
    solved = plan(dense_baseline(configure(words)), size)
    rows = _dry_run(*words)
    assert rows["parameters"][0] == f"{solved.count.params_total:,}"
    assert float(rows["passes over the text"][0]) == pytest.approx(solved.tokens / corpus.train_tokens, rel=0.01)


@pytest.mark.parametrize("words", [["data.train=[nope.txt]"], ["data.train=[nope/]"], []])
def test_dry_run_refuses_missing_text(words):
    with pytest.raises(UserError, match="data.train"):
        describe(configure(["+method=mod", "data=text", *words]))


def test_dry_run_says_at_most_for_text_that_it_does_not_read(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 900_000)
    said = describe(configure(["+method=dense", "data=text", f"data.train=[{tmp_path / 'a.txt'}]"]))
    assert "a vocabulary of at most 16,384" in said


@pytest.mark.parametrize("method", ["dense", "moe", "shallow"])
@pytest.mark.parametrize("vocab_size", [512, 16_384])
def test_planned_memory_is_little_above_the_measured(method, vocab_size):
    """Measured on a step of a model of that vocabulary, whose logits are most of it at the larger one."""
    words = ["data.tokenizer.kind=bpe", f"data.tokenizer.vocab_size={vocab_size}"]
    shape = ["model.d_model=64", "model.n_layers=4", "model.context=64", "train.batch_size=8"]
    config = configure([f"+method={method}", *words, *shape])
    solved = plan(config, vocab_size)
    trainee = Trainee(build_model(solved.model, config.method, vocab_size), config.train, 64, torch.device("cpu"))
    tokens = torch.randint(vocab_size, (8, 64))
    trainee.step(tokens, tokens, 0.0)
    measured = peak_bytes(lambda: trainee.step(tokens, tokens, 0.0), trainee.model, trainee.optimiser)
    assert measured <= training_memory(solved, config) < 1.2 * measured


def test_closed_pipe_ends_the_command_quietly(tmp_path):
    """As in `python -m bench ... | true`: the pipe's other end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "bench", "+method=mod", "--cfg", "job"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = _bench("+method=mod", *TINY, "name=tiny", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def _record(folder, method) -> tuple[Path, object]:
    (path,) = folder.glob(f"results/tiny/{method}-*/record.json")
    return path, load_record(path)


def test_run_records_every_promised_figure(finished):
    folder, done = finished
    _, dense = _record(folder, "dense")
    _, mod = _record(folder, "mod")
    assert mod.flops.forward_analytic == mod.flops.forward_fvcore == mod.flops.forward_torch > 0
    assert abs(mod.flops.train_total / mod.flops.budget - 1) < mod.flops.train_per_token * 256 / mod.flops.budget
    assert mod.quality.val_loss_nats_noncausal is not None and dense.quality.val_loss_nats_noncausal is None
    assert mod.causality.passed and mod.comparable
    assert 0 < mod.routing.predictor_accuracy <= 1 and set(mod.routing.fraction_processed_by_layer) == {"1"}
    assert mod.speed.train_speedup_realised.samples == 2 and dense.speed.train_speedup_realised is None
    assert mod.speed.train_speedup_ideal == pytest.approx(dense.flops.train_per_token / mod.flops.train_per_token)
    assert mod.memory.peak_bytes > 0
    assert list(mod.routing.causal_routers) == ["predictor", "threshold", "expert_threshold"]
    assert mod.routing.causal_routers["predictor"].val_loss_nats == mod.quality.val_loss_nats
    assert mod.routing.causal_routers["predictor"].accuracy == mod.routing.predictor_accuracy
    assert all(len(each.fraction_by_position) == 8 for each in mod.routing.causal_routers.values())
    assert [(point.batch_size, point.context) for point in mod.speed.decode] == [(1, 32), (8, 32)]
    for point, twin in zip(mod.speed.decode, dense.speed.decode, strict=True):
        assert point.kv_cache_held_bytes < twin.kv_cache_held_bytes == twin.batch_size * 64 * 2 * 2 * 32 * 4
        assert point.speedup_realised.samples == 3 and 1 < point.speedup_ideal < 2 and twin.speedup_ideal is None
    assert set(mod.lm_eval) == {
        "bench_heldout",
        "bench_last_word",
        "bench_spelling",
        "bench_agreement",
        "bench_copy",
    }
    assert mod.lm_eval["bench_heldout"]["bits_per_byte"] == pytest.approx(mod.quality.val_bpb, rel=1e-5)
    assert mod.run.comparison_hash == dense.run.comparison_hash
    assert "report: " in done.stdout and "One seed" in done.stdout
    assert (folder / "reports" / "tiny" / "index.html").exists()


def test_steps_are_logged_with_columns_of_the_method(finished):
    path, record = _record(finished[0], "mod")
    with open(path.parent / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record.training.steps
    assert {"step", "tokens", "train_flops", "seconds", "loss", "lr", "grad_norm", "predictor_accuracy"} <= set(rows[0])
    assert int(rows[-1]["tokens"]) == record.training.tokens


def test_interrupted_run_says_how_to_resume(tmp_path):
    command = [sys.executable, "-m", "bench", "+method=mod", *TINY]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not glob.glob(f"{tmp_path}/results/*/*/steps.csv"):  # Path.glob fails where a folder vanishes meanwhile
        assert running.poll() is None
    running.terminate()
    _, errors = running.communicate()
    assert running.returncode == 130 and "To resume: python -m bench +method=mod" in errors
    assert "Traceback" not in errors


def test_sweep_over_results_folders_writes_them_all(tmp_path):
    few = ["evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]", "name=tiny"]
    done = _bench("-m", "+method=dense", "results_dir=one,two", *TINY, *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(list(tmp_path.glob(f"{folder}/tiny/dense-*/record.json")) for folder in ("one", "two"))


def test_finished_runs_are_not_run_again(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("results/**/record.json")}
    done = _bench("+method=mod", *TINY, "name=tiny", cwd=folder)
    assert done.returncode == 0 and done.stdout.count("is finished and is reused") == 2
    assert {path: path.stat().st_mtime_ns for path in folder.glob("results/**/record.json")} == before


FAILURES = {
    "full disk": ("resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))", "'x' * 10_000", "cannot write"),
    "not text": ("", "'new \\ud800'", "surrogates not allowed"),
}


@pytest.mark.parametrize("before,text,message", FAILURES.values(), ids=FAILURES)
def test_failed_write_keeps_the_old_file(before, text, message, tmp_path):
    """In a process of its own, whose files may not grow past a limit, which stops root as well."""
    path = tmp_path / "file"
    write_atomically(path, "old")
    script = f"""
import resource, signal
from pathlib import Path
from bench.records.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
{before}
write_atomically(Path({str(path)!r}), {text})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_onto_a_folder_leaves_nothing(tmp_path):
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text,message", [
    ("{\"schema_version\": 1, ", "not a complete JSON file"),
    ("{\"schema_version\": 99}", "schema version 99"),
    ("{\"schema_version\": 1}", "not a valid record"),
    ("[]", "not a valid record"),
])  # fmt: skip
def test_bad_record_is_one_line(text, message, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_record(path)
    assert "\n" not in str(caught.value)
