"""What a run takes from earlier runs, and what it refuses: only finished runs and baselines of the same text."""

import pytest
import torch

from bench.config.compose import configure
from bench.config.identity import config_hash, run_folder
from bench.data import prepare
from bench.data.corpus import corpus_fingerprint
from bench.errors import UserError
from bench.flops.trace import Traced
from bench.measure.machine import Machine
from bench.records.record import load_record
from bench.runs.comparison import compare
from bench.runs.load import WEIGHTS
from bench.runs.prepared import finished, prepare_run
from bench.runs.run import run
from bench.train.step import Trainee

torch.set_num_threads(1)
TINY = [
    "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=32", "train.batch_size=4",
    "train.budget_flops=3e8", "train.threads=1", "train.device=cpu", "evaluate.validation_tokens=2000",
    "evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]", "evaluate.timing_steps=0", "name=st",
    "seeds=1", "evaluate.speed_shape=null",
]  # fmt: skip
MACHINE = Machine(torch.device("cpu"), 1e11)


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Configures a method on one text file, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path, "sheep")
    data = ["data=text", "data.train=[s.jsonl]", "data.validation_documents=4"]
    return lambda method, *more: configure([f"+method={method}", *data, *TINY, *more])


def write_text(folder, animal, name="s.jsonl"):
    lines = [f'{{"text": "There are {n} {animal} on hill {7 * n}, and then {n + 1}."}}\n' for n in range(200)]
    (folder / name).write_text("".join(lines))


def trained(config, command):
    corpus = prepare(config.data)
    return run(prepare_run(config, corpus.tokenizer.vocab_size), corpus, MACHINE, command)


def recorded(config):
    return load_record(run_folder(config) / "record.json")


def test_runs_of_other_text_are_neither_reused_nor_compared(configured, tmp_path):
    assert compare([configured("dense")], ["first"])
    dense = run_folder(configured("dense"))
    before = (dense / "record.json").read_bytes()
    write_text(tmp_path, "goats")
    for method in ("dense", "mod"):
        with pytest.raises(
            UserError, match="other text.*has changed since. To train it again, set name= .*or delete"
        ) as caught:
            compare([configured(method)], ["again"])
        assert str(dense) in str(caught.value) and "\n" not in str(caught.value)
    assert (dense / "record.json").read_bytes() == before
    assert [path.name for path in dense.parent.iterdir()] == [dense.name]
    assert compare([configured("mod", "name=goats")], ["elsewhere"])


def test_run_of_the_same_text_is_reused(configured, tmp_path, capsys):
    compare([configured("dense")], ["first"])
    write_text(tmp_path, "sheep")
    compare([configured("dense")], ["again"])
    assert "is finished and is reused" in capsys.readouterr().out


def test_record_without_a_fingerprint_is_used_as_it_is(configured, tmp_path):
    config = configured("dense")
    record = trained(config, "first")
    assert record.run.corpus_fingerprint and record.run.config_hash == config_hash(config)
    path = run_folder(config) / "record.json"
    record.run.corpus_fingerprint = None
    path.write_text(record.model_dump_json(exclude_none=True))
    assert "corpus_fingerprint" not in path.read_text()
    write_text(tmp_path, "goats")
    assert finished(config) == load_record(path)


def test_checkpoint_of_other_text_is_refused(configured, tmp_path, monkeypatch):
    config = configured("dense", "train.checkpoint_every_seconds=1e-9")
    with monkeypatch.context() as patched:
        patched.setattr("bench.runs.run.assess", _stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(config, "first")
    write_text(tmp_path, "goats")
    with pytest.raises(UserError, match="checkpoint.json was trained on other text"):
        trained(config, "again")


def _stopped(*_):
    raise KeyboardInterrupt


def test_method_and_baseline_train_on_the_same_batches_in_order(configured, monkeypatch):
    """What each is given, step by step; the cheaper method only trains for longer."""
    handed, step = [], Trainee.step

    def watched(self, inputs, targets, lr):
        handed[-1].append(torch.stack([inputs, targets]))
        return step(self, inputs, targets, lr)

    monkeypatch.setattr(Trainee, "step", watched)
    for method in ("dense", "mod", "moe"):
        handed.append([])
        config = configured(method, "seed=3")
        trained(config, "command")
    dense = handed[0]
    assert len(dense) > 5 and len({batch.numpy().tobytes() for batch in dense}) == len(dense)
    for method in handed[1:]:
        for one, other in zip(dense, method, strict=False):
            assert torch.equal(one, other)


def test_counts_that_disagree_stop_the_run_before_training(configured, monkeypatch):
    wrong = Traced(analytic=1.0e9, fvcore=1.0e9, torch=1.002e9, train_analytic=3.0e9, train_torch=3.0e9)
    monkeypatch.setattr("bench.flops.trace.trace", lambda *_: (wrong, {}))
    config = configured("dense")
    with pytest.raises(UserError, match=r"disagree by 0.20%.*it was not trained") as caught:
        run(prepare_run(config), prepare(config.data), MACHINE, "command")
    assert "\n" not in str(caught.value)
    assert not run_folder(config).exists()


def test_baseline_without_weights_is_reported(configured, capsys):
    compare([configured("dense", "evaluate.timing_steps=1")], ["first"])
    baseline = run_folder(configured("dense", "evaluate.timing_steps=1"))
    (baseline / WEIGHTS).unlink()
    compare([configured("mod", "evaluate.timing_steps=1")], ["second"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if WEIGHTS in line]
    assert line.startswith(f"{baseline} holds no {WEIGHTS}") and f"delete {baseline}" in line


def test_failure_of_a_run_is_reported_whenever_it_is_used(configured, capsys):
    words = ["train.lr=1e40", "train.grad_clip=1e30", "evaluate.timing_steps=1"]
    baseline = run_folder(configured("dense", *words))
    for command in ("first", "again"):
        assert not compare([configured("dense", *words)], [command])
        assert f"{baseline.name}: the loss became NaN at step" in capsys.readouterr().out
    compare([configured("mod", *words)], ["its method"])
    printed = capsys.readouterr().out
    assert f"{baseline} diverged, so MoD (seed 0) has no baseline to compare with" in printed
    assert "To measure one, stop here" not in printed


def test_finite_explosion_of_the_baseline_is_not_compared_with(configured, capsys):
    assert not compare([configured("mod", "train.lr=10")], ["command"])
    printed = capsys.readouterr().out
    baseline = recorded(configured("dense", "train.lr=10"))
    assert baseline.run.status == "diverged" and baseline.training.final_loss > 6
    assert "quality not compared with dense" in printed and baseline.run.message in " ".join(printed.split())


def test_each_run_of_a_sweep_over_texts_trains_on_its_own(configured, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "bench.runs.comparison.excluded_tasks", lambda corpus, evaluate: [f"left out of {corpus.fingerprint}"]
    )
    write_text(tmp_path, "goats", "g.jsonl")
    sweep = [(seed, text) for seed in (0, 1) for text in ("s.jsonl", "g.jsonl")]
    configs = [configured("dense", f"seed={seed}", f"data.train=[{text}]") for seed, text in sweep]
    assert compare(configs, ["command"] * 4)
    texts = [corpus_fingerprint(config.data) for config in configs]
    assert [recorded(config).run.corpus_fingerprint for config in configs] == texts
    assert len(set(texts)) == 2
    excluded = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out of")]
    assert excluded == [f"left out of {text}" for text in texts[:2]]


def test_each_run_of_a_sweep_has_its_own_threads_and_machine(configured, monkeypatch):
    measured = []  # once for all runs of equal settings
    monkeypatch.setattr(
        "bench.measure.machine.matmul_rate", lambda _, dtype: measured.append(dtype) or 1e9 * len(measured)
    )
    monkeypatch.setattr("bench.measure.machine._THREADS", 1)
    sweep = [("2", "float32"), ("null", "float32"), ("2", "float32"), ("1", "bfloat16")]
    words = [[f"train.threads={threads}", f"train.dtype={dtype}"] for threads, dtype in sweep]
    configs = [configured("dense", f"seed={n}", "evaluate.timing_steps=1", *each) for n, each in enumerate(words)]
    assert compare(configs, ["command"] * 4)
    records = [recorded(config) for config in configs]
    assert [record.environment.threads for record in records] == [2, 1, 2, 1]
    assert [record.speed.matmul_flops_per_second for record in records] == [1e9, 2e9, 1e9, 3e9]
    assert measured == [torch.float32, torch.float32, torch.bfloat16]


def test_smaller_vocabulary_than_asked_for_is_planned_again(configured):
    """A BPE on little text ends up smaller than its configuration says, and so does the model."""
    config = configured("mod", "data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=4096")
    prepared = prepare_run(config)
    assert (prepared.vocab_size, prepared.baseline.vocab_size) == (4096, 4096)
    smaller = prepared.with_vocabulary(300)
    assert smaller.plan.count.params_total < prepared.plan.count.params_total
    assert smaller.baseline.plan.count.params_total < prepared.baseline.plan.count.params_total
    assert (smaller.hash, smaller.folder) == (prepared.hash, prepared.folder)
    assert prepared.with_vocabulary(4096) is prepared and prepared.baseline.baseline is None


def test_mistake_in_the_last_run_of_a_sweep_stops_the_first(configured):
    configs = [configured("dense"), configured("dense", "train.budget_flops=10")]
    with pytest.raises(UserError, match="train.budget_flops=10 is less than one step"):
        compare(configs, ["first", "second"])
    assert not run_folder(configs[0]).exists()
