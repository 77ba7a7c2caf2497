"""`python -m bench.generate` on real, small runs: bytes and subwords."""

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bench.data.tokenizer import ByteTokenizer
from bench.errors import UserError
from bench.generate import main, stream, whole_characters
from bench.runs.load import find_run, load_run

TINY = [
    "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=64", "train.batch_size=4",
    "train.budget_flops=3e9", "train.threads=1", "evaluate.validation_tokens=2000", "evaluate.timing_steps=2",
    "evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]",
    "seeds=1", "evaluate.speed_shape=null",
]  # fmt: skip
CACHE = f"data.cache_dir={Path(__file__).resolve().parents[2] / '.cache' / 'bench'}"  # shared: no text is read twice


def _trained(folder, *words):
    done = subprocess.run([sys.executable, "-m", "bench", *words, *TINY], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _trained(tmp_path_factory.mktemp("bytes"), "+method=mod", "name=tiny", CACHE)


@pytest.fixture(scope="module")
def run(folder):
    (path,) = folder.glob("results/tiny/mod-*")
    return path


def _output(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_generate_same_seed_gives_the_same_text(run, capsys):
    status, first, notes = _output(capsys, run, "And God", "--max-tokens", 40)
    assert status == 0 and "tokens/s" in notes and first.strip()
    assert _output(capsys, run, "And God", "--max-tokens", 40)[1] == first
    assert _output(capsys, run, "And God", "--max-tokens", 40, "--seed", 1)[1] != first


def test_temperature_zero_needs_no_seed(run, capsys):
    greedy = [_output(capsys, run, "And", "--temperature", 0, "--seed", seed, "--max-tokens", 20)[1] for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_empty_and_too_long_prompts_are_continued(run, capsys):
    assert _output(capsys, run, "", "--max-tokens", 5)[0] == 0
    status, _, notes = _output(capsys, run, "a" * 100, "--max-tokens", 100)
    assert status == 0 and "the prompt has 100 tokens; the model reads the last 64" in notes


def test_stream_only_appends_text(run):
    found = load_run(run)
    options = Namespace(max_tokens=120, temperature=3.0, top_p=1.0, seed=3)  # hot: many broken characters
    texts = list(stream(found, [65], options))
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))


def test_whole_characters_hides_a_partial_character():
    text, shown = "naïve €5 – 日本".encode(), ""
    for end in range(1, len(text) + 1):
        now = whole_characters(ByteTokenizer().decode(list(text[:end])))
        assert now.startswith(shown) and "\ufffd" not in now
        shown = now
    assert shown == text.decode()


MISTAKES = {
    "no run": (["nothing", "x"], "does not name one run"),
    "several": (["results/tiny", "x"], "Choose from"),
    "tokens": (["RUN", "x", "--max-tokens", "0"], "--max-tokens 0"),
    "temperature": (["RUN", "x", "--temperature", "nan"], "--temperature nan"),
    "top_p": (["RUN", "x", "--top-p", "0"], "--top-p 0"),
    "bytes": (["RUN", "\udcff"], "not UTF-8"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_on_the_command_line_is_one_line(name, folder, run, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    words, message = MISTAKES[name]
    status, out, err = _output(capsys, *[run if word == "RUN" else word for word in words])
    assert status == 2 and not out
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_missing_or_truncated_weights_are_one_line(run, tmp_path):
    (tmp_path / "record.json").write_bytes((run / "record.json").read_bytes())
    with pytest.raises(UserError, match="no model.safetensors. Train it again: python -m bench"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        load_run(tmp_path)


def _harmed_record(**changes):
    """Sets keys of the record, written with two underscores for each dot."""

    def harm(folder):
        record = json.loads((folder / "record.json").read_text())
        for key, value in changes.items():
            *path, last = key.split("__")
            part = record
            for name in path:
                part = part[name]
            part[last] = value
        (folder / "record.json").write_text(json.dumps(record))

    return harm


def _not_a_number(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")


def _flipped_header(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[100:104] = bytes(byte ^ 0xFF for byte in content[100:104])
    (folder / "model.safetensors").write_bytes(content)


HARMS = {
    "weights not finite": (_not_a_number, "holds weights that are not finite"),
    "weights flipped": (_flipped_header, "is damaged"),
    "hostile method": (
        _harmed_record(config__method__name="../../../x"),
        "method.name='../../../x' must be a plain folder name",
    ),
    "dotted method": (_harmed_record(config__method__name="a.b"), "'a.b' is not the name of a method"),
    "a million layers": (_harmed_record(config__model__n_layers=10**6), "error: .*n_layers|describes a larger model"),
    "wide": (_harmed_record(config__model__d_model=1 << 12, config__train__budget_flops=1e15), "a larger model"),
    "no heads": (_harmed_record(config__model__n_heads=0), "record.json.*n_heads|no model that this bench can build"),
    "text for a number": (_harmed_record(config__model__n_heads="two"), "n_heads|no model that this bench can build"),
    "norm": (_harmed_record(config__model__norm_eps=-1e6), "norm_eps|output is not finite"),
    "vocabulary": (_harmed_record(model__vocab_size=10), "tokenizer of 256 tokens and a record of 10"),
}


@pytest.mark.parametrize("name", HARMS)
def test_damaged_or_hostile_run_is_one_line(name, run, tmp_path, capsys):
    harm, message = HARMS[name]
    shutil.copytree(run, tmp_path / "run")
    harm(tmp_path / "run")
    status, out, err = _output(capsys, tmp_path / "run", "And", "--max-tokens", 3)
    assert status == 2 and out.strip() == ""
    assert err.startswith("error: ") and re.search(message, err) and err.count("\n") == 1


def test_find_run_by_id(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_run(run.name).resolve() == run.resolve()


def test_find_run_suggests_only_runs_with_weights(folder, run, tmp_path):
    for name in ("whole", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_bytes((run / "record.json").read_bytes())
    (tmp_path / "whole" / "model.safetensors").touch()
    with pytest.raises(UserError, match="Choose from .*whole") as caught:
        find_run("nothing", tmp_path)
    assert "bare" not in str(caught.value)


def test_closed_pipe_and_ascii_terminal_are_no_errors(folder, run):
    command = [sys.executable, "-m", "bench.generate", str(run.resolve()), "é", "--temperature", "9", "--max-tokens"]
    left = subprocess.run(
        ["bash", "-c", '"$@" | head -c 1', "bash", *command, "60"], capture_output=True, text=True, cwd=folder
    )
    assert left.stderr == ""
    ascii_alone = subprocess.run(
        [*command, "60"], capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert ascii_alone.returncode == 0 and "?" in ascii_alone.stdout and " tokens/s" in ascii_alone.stderr


def test_tiny_temperature_equals_temperature_zero(run, capsys):
    status, out, notes = _output(capsys, run, "And", "--temperature", "1e-45", "--max-tokens", 1)
    assert status == 0 and notes.startswith("1 token in ")
    assert out == _output(capsys, run, "And", "--temperature", 0, "--max-tokens", 1)[1]


def test_bpe_run_needs_no_corpus_cache(tmp_path, capsys):
    words = ["+method=dense", "name=words", "data=kjv", "data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=512"]
    folder = _trained(tmp_path, *words, f"data.cache_dir={tmp_path / 'cache'}")
    (path,) = folder.glob("results/words/dense-*")
    for cached in (tmp_path / "cache").glob("*/*"):
        cached.unlink()  # the run stands by itself
    status, out, _ = _output(capsys, path, "And God", "--max-tokens", 10)
    assert status == 0 and out.strip()
    (path / "tokenizer.json").write_bytes((path / "tokenizer.json").read_bytes()[:1000])
    status, out, err = _output(capsys, path, "And God")
    assert status == 2 and "tokenizer.json is not a valid tokenizer.json" in err and err.count("\n") == 1
