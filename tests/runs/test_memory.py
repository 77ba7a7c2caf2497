"""What cannot fit into memory is refused before training; what fails later is one line, and the record stays."""

import pytest
import torch

from bench.config.compose import configure
from bench.config.identity import run_folder
from bench.data import prepare
from bench.errors import UserError, out_of_memory
from bench.measure.machine import Machine, available_bytes
from bench.records.record import load_record
from bench.runs import run
from bench.runs.memory import check_memory
from bench.runs.prepared import prepare_run

TINY = [
    "model.n_layers=2", "model.d_model=16", "model.n_heads=1", "model.context=32", "train.batch_size=4",
    "train.budget_flops=5e7", "train.threads=1", "train.device=cpu", "evaluate.validation_tokens=500",
    "evaluate.tasks=[]", "evaluate.timing_steps=1", "name=memory",
    "seeds=1", "evaluate.speed_shape=null",
]  # fmt: skip
MACHINE = Machine(torch.device("cpu"), 1e11)


def test_run_that_fits_is_not_refused():
    check_memory(prepare_run(configure(["+method=mod", *TINY])), available_bytes(torch.device("cpu")))


def test_too_many_decoded_rows_are_refused_with_how_many_fit():
    config = configure(["+method=mod", *TINY, "evaluate.decode_batch_sizes=[1,16000000]"])
    with pytest.raises(UserError, match="evaluate.decode_batch_sizes: 16000000 rows need .* at most [1-9]") as caught:
        check_memory(prepare_run(config), 2**30)
    assert "\n" not in str(caught.value)
    check_memory(prepare_run(configure(["+method=mod", *TINY, "evaluate.decode_batch_sizes=[]"])), 2**30)


def test_too_large_a_model_is_refused_with_its_size():
    config = configure(["+method=dense", *TINY, "model.d_model=4096", "train.budget_flops=1e20"])
    with pytest.raises(UserError, match="parameters and needs more than .* GiB to train.*model.d_model"):
        check_memory(prepare_run(config), 2**30)


def test_failed_allocation_while_timing_keeps_the_record(tmp_path, monkeypatch, capsys):
    def allocate(*_):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(run, "assess_speed", allocate)
    config = configure(["+method=dense", *TINY, f"results_dir={tmp_path}"])
    prepared, corpus = prepare_run(config), prepare(config.data)
    record = run.run(prepared, corpus, MACHINE, "command", lambda progress: None)
    assert run.to_be_timed(prepared, record) and run.time_run(prepared, corpus, MACHINE) == record
    record = load_record(run_folder(config) / "record.json")
    assert record.run.status == "finished" and record.quality and record.speed is None
    assert "speed is not measured, because there is not enough memory" in capsys.readouterr().out


def test_only_a_failed_allocation_is_called_one():
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")):
        assert "not enough memory" in out_of_memory(error)
    assert out_of_memory(RuntimeError("shapes differ")) is None


def test_record_that_cannot_be_read_back_ends_the_run(tmp_path, monkeypatch):
    config = configure(["+method=dense", *TINY, f"results_dir={tmp_path}", "evaluate.timing_steps=0"])

    def no_loss(record, *_):
        record.training.final_loss = 0.0

    monkeypatch.setattr(run, "assess", no_loss)
    with pytest.raises(UserError, match="cannot be right.*final_loss.*a loss must be above 0") as caught:
        run.run(prepare_run(config), prepare(config.data), MACHINE, "command", lambda progress: None)
    assert "\n" not in str(caught.value)
