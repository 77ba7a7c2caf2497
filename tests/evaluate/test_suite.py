"""The offline suite in the real harness: oracles score 1, know-nothings score chance."""

import random

import numpy as np
import pytest
import torch

from bench.config import EvaluateConfig
from bench.data import Document
from bench.data.tokenizer import ByteTokenizer
from bench.errors import UserError
from bench.evaluate import evaluate
from bench.evaluate.probes import PROBES, agreement, copy, last_word

TEXT = ByteTokenizer()
CHOICES = ["bench_last_word", "bench_copy", "bench_agreement"]


@pytest.fixture(scope="module")
def documents():
    from bench.config import DataConfig
    from bench.data import prepare

    return list(prepare(DataConfig(name="kjv")).validation[:12])


class _Said:
    """What each row has read so far, kept in the cache as a layer would keep keys."""

    def __init__(self, rows):
        self.rows = rows
        self.lengths = torch.zeros(len(rows))

    def select(self, rows):
        return _Said([self.rows[row] for row in rows.tolist()])


class _Uniform:
    """Knows nothing."""

    context, vocab_size, device = 256, 256, torch.device("cpu")

    def eval(self):
        return self

    def extend(self, tokens, counts, cache, wanted=None):
        said = cache.layers.setdefault("said", _Said([b""] * cache.rows))
        logits = torch.zeros(len(tokens), 256)
        place = 0
        for row, count in enumerate(counts):
            for token in tokens[place : place + count].tolist():
                said.rows[row] += bytes([token])
                self.after(said.rows[row], logits[place])
                place += 1
        return logits if wanted is None else logits[wanted]

    def after(self, said, logits):
        pass


class _Oracle(_Uniform):
    """Knows the right answers by heart: it is given the prompts with their answers."""

    def __init__(self, texts):
        self.texts = [text.encode() for text in texts]

    def after(self, said, logits):
        for text in self.texts:
            if len(said) < len(text) and text.startswith(said):
                logits[text[len(said)]] = 20.0


def _made(name, documents):
    make, count = PROBES[name]
    return make([d.text for d in documents], count, random.Random(f"0 {name}"))


@pytest.mark.parametrize("name", CHOICES)
def test_an_oracle_scores_one(name, documents):
    answers = [f"{d['prompt']} {d['choices'][d['answer']]}" for d in _made(name, documents)[:40]]
    config = EvaluateConfig(tasks=[name], limit=40)
    assert evaluate(_Oracle(answers), TEXT, documents, config, seed=0)[name]["acc"] == 1.0


@pytest.mark.parametrize("name", CHOICES)
def test_knowing_nothing_scores_near_chance(name, documents):
    scores = evaluate(_Uniform(), TEXT, documents, EvaluateConfig(tasks=[name]), seed=0)[name]
    # uniform bytes prefer short answers, which the length-normalised accuracy takes out up to ties
    assert abs(scores["acc_norm"] - scores["chance"]) < 4 * max(scores["acc_norm_stderr"], 0.03)


def test_bits_per_byte_of_a_uniform_model_is_eight(documents):
    scores = evaluate(_Uniform(), TEXT, documents, EvaluateConfig(tasks=["bench_heldout"]), seed=0)["bench_heldout"]
    assert scores["bits_per_byte"] == pytest.approx(8.0, abs=1e-3)
    assert 0 <= scores["bits_per_byte_stderr"] < 1e-3


def test_no_tasks_no_scores(documents):
    assert evaluate(_Uniform(), TEXT, documents, EvaluateConfig(tasks=[]), seed=0) == {}


def test_an_unknown_task_is_one_line(documents):
    with pytest.raises(UserError, match="no_such_task is unknown.*bench_copy"):
        evaluate(_Uniform(), TEXT, documents, EvaluateConfig(tasks=["no_such_task"]), seed=0)


def test_text_too_short_for_a_task_is_one_line():
    short = [Document(text="In the beginning.", tokens=np.zeros(17, np.uint16), n_bytes=17)]
    with pytest.raises(UserError, match="too short for bench_last_word"):
        evaluate(_Uniform(), TEXT, short, EvaluateConfig(tasks=["bench_last_word"]), seed=0)


def test_random_state_is_left_alone(documents):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    evaluate(_Uniform(), TEXT, documents, EvaluateConfig(tasks=["bench_copy"], limit=4), seed=0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize("name", list(PROBES))
def test_documents_depend_on_the_seed_alone(name, documents):
    assert _made(name, documents) == _made(name, documents)


def test_copying_needs_order_not_frequency(documents):
    """Every choice stands exactly once in the first round, and none in the second: counts tell nothing."""
    for item in copy([d.text for d in documents], 60, random.Random(1)):
        words = item["prompt"].split()
        assert [words.count(choice) for choice in item["choices"]] == [1, 1, 1, 1]
        repeated = words[item["distance"] :]
        assert item["choices"][item["answer"]] == words[len(repeated)]
        assert repeated == words[: len(repeated)]


def test_agreement_pairs_differ_in_the_verb_alone():
    for item in agreement([], 100, random.Random(1)):
        first, second = (choice.split(" ", 1) for choice in item["choices"])
        assert first[0] != second[0]
        assert first[1] == second[1]


def test_last_words_are_the_text_s_own(documents):
    text = " ".join(" ".join(d.text.split()) for d in documents)
    for item in last_word([d.text for d in documents], 60, random.Random(1)):
        prompt = " ".join(item["prompt"].split())
        assert any(f"{prompt} {item['choices'][item['answer']]}{mark}" in text for mark in ".?!")
