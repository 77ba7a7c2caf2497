"""`python -m bench.generate` on real, small runs: bytes and subwords."""

import os
import subprocess
import sys
from argparse import Namespace

import pytest

from bench.data.tokenizer import ByteTokenizer
from bench.errors import UserError
from bench.generate import main, stream, whole_characters
from bench.runs.load import find_run, load_run

TINY = [
    "model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=64", "train.batch_size=4",
    "train.budget_flops=3e9", "train.threads=1", "evaluate.validation_tokens=2000", "evaluate.timing_steps=2",
    "evaluate.tasks=[]", "evaluate.decode_batch_sizes=[]",
]  # fmt: skip


def _trained(folder, *words):
    done = subprocess.run([sys.executable, "-m", "bench", *words, *TINY], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _trained(tmp_path_factory.mktemp("bytes"), "+method=mod", "name=tiny")


@pytest.fixture(scope="module")
def run(folder):
    (path,) = folder.glob("results/tiny/mod-*")
    return path


def _said(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_same_seed_gives_the_same_text(run, capsys):
    status, first, told = _said(capsys, run, "And God", "--max-tokens", 40)
    assert status == 0 and "a second" in told and first.strip()
    assert _said(capsys, run, "And God", "--max-tokens", 40)[1] == first
    assert _said(capsys, run, "And God", "--max-tokens", 40, "--seed", 1)[1] != first


def test_greedy_decoding_ignores_the_seed(run, capsys):
    greedy = [_said(capsys, run, "And", "--temperature", 0, "--seed", seed, "--max-tokens", 20)[1] for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_empty_and_overlong_prompts_generate(run, capsys):
    assert _said(capsys, run, "", "--max-tokens", 5)[0] == 0
    status, _, told = _said(capsys, run, "a" * 100, "--max-tokens", 100)
    assert status == 0 and "the prompt has 100 tokens, and the model reads its last 64" in told


def test_streamed_text_only_grows(run):
    found = load_run(run)
    options = Namespace(max_tokens=120, temperature=3.0, top_p=1.0, seed=3)  # hot: many broken characters
    texts = list(stream(found, [65], options))
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))


def test_character_is_shown_once_it_is_whole():
    text, shown = "naïve €5 – 日本".encode(), ""
    for end in range(1, len(text) + 1):
        now = whole_characters(ByteTokenizer().decode(list(text[:end])))
        assert now.startswith(shown) and "\ufffd" not in now
        shown = now
    assert shown == text.decode()


MISTAKES = {
    "no run": (["nothing", "x"], "is not one run"),
    "several": (["results/tiny", "x"], "Choose from"),
    "tokens": (["RUN", "x", "--max-tokens", "0"], "--max-tokens 0"),
    "temperature": (["RUN", "x", "--temperature", "nan"], "--temperature nan"),
    "top_p": (["RUN", "x", "--top-p", "0"], "--top-p 0"),
    "bytes": (["RUN", "\udcff"], "not UTF-8"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_generate_mistake_is_one_line(name, folder, run, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    words, told = MISTAKES[name]
    status, out, err = _said(capsys, *[run if word == "RUN" else word for word in words])
    assert status == 2 and not out
    assert err.startswith("error: ") and told in err and err.count("\n") == 1


def test_damaged_and_missing_weights_are_reported(run, tmp_path):
    (tmp_path / "record.json").write_bytes((run / "record.json").read_bytes())
    with pytest.raises(UserError, match="no model.safetensors. Train it again: python -m bench"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        load_run(tmp_path)


def test_run_is_found_by_its_id(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_run(run.name).resolve() == run.resolve()


def test_only_runs_with_weights_are_suggested(folder, run, tmp_path):
    for name in ("whole", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_bytes((run / "record.json").read_bytes())
    (tmp_path / "whole" / "model.safetensors").touch()
    with pytest.raises(UserError, match="Choose from .*whole") as caught:
        find_run("nothing", tmp_path)
    assert "bare" not in str(caught.value)


def test_closed_pipe_and_ascii_terminal_are_handled(folder, run):
    command = [sys.executable, "-m", "bench.generate", str(run.resolve()), "é", "--temperature", "9", "--max-tokens"]
    left = subprocess.run(
        ["bash", "-c", '"$@" | head -c 1', "bash", *command, "60"], capture_output=True, text=True, cwd=folder
    )
    assert left.stderr == ""
    ascii_alone = subprocess.run(
        [*command, "60"], capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert ascii_alone.returncode == 0 and "?" in ascii_alone.stdout and " a second" in ascii_alone.stderr


def test_tiny_temperature_generates_as_greedy_does(run, capsys):
    status, out, told = _said(capsys, run, "And", "--temperature", "1e-45", "--max-tokens", 1)
    assert status == 0 and told.startswith("1 token in ")
    assert out == _said(capsys, run, "And", "--temperature", 0, "--max-tokens", 1)[1]


def test_subword_run_generates_with_its_own_tokenizer(tmp_path, capsys):
    words = ["+method=dense", "name=words", "data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=512"]
    folder = _trained(tmp_path, *words, f"data.cache_dir={tmp_path / 'cache'}")
    (path,) = folder.glob("results/words/dense-*")
    for cached in (tmp_path / "cache").glob("*/*"):
        cached.unlink()  # the run stands by itself
    status, out, _ = _said(capsys, path, "And God", "--max-tokens", 10)
    assert status == 0 and out.strip()
