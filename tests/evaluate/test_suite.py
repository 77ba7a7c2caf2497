"""The offline suite in the real harness: oracles score 1, know-nothings score chance."""

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bench.config import EvaluateConfig
from bench.data import Document, kjv
from bench.data.tokenizer import ByteTokenizer
from bench.errors import UserError
from bench.evaluate import evaluate, load_tasks, suite
from bench.evaluate.probes import PROBES, agreement, copy, last_word, spelling

TEXT = ByteTokenizer()
CHOICES = ["bench_last_word", "bench_spelling", "bench_copy", "bench_agreement"]


@pytest.fixture(scope="module")
def validation():
    from bench.config import DataConfig
    from bench.data import prepare

    return list(prepare(DataConfig(name="kjv")).validation)


@pytest.fixture(scope="module")
def documents(validation):
    return validation[:12]


def _training_texts():
    return [text for (book, _), text in kjv.chapters().items() if book not in kjv.HELD_OUT]


class _Uniform:
    """Knows nothing."""

    context, vocab_size, device = 256, 256, torch.device("cpu")

    def eval(self):
        return self

    def tree_logits(self, trees, wanted):
        """A row for each token of the trees, by the text that leads to it; those that are `wanted`."""
        said = [b""] * sum(len(tree.tokens) for tree in trees)
        start = 0
        for tree in trees:
            for text, path in tree.paths.items():
                for length, place in enumerate(path, 1):
                    said[start + place] = bytes(text[:length])
            start += len(tree.tokens)
        logits = torch.zeros(len(said), 256)
        for row, text in enumerate(said):
            self.after(text, logits[row])
        return logits[wanted]

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
    """Every choice stands exactly once in the list, and none in the piece that comes again: counts tell nothing."""
    for item in copy([d.text for d in documents], 60, random.Random(1)):
        words = item["prompt"].split()
        assert [words.count(choice) for choice in item["choices"]] == [1, 1, 1, 1]
        answer = words.index(item["choices"][item["answer"]])
        assert len(words) - answer == item["distance"]
        shown = [number for number, word in enumerate(words) if word in words[:number]]
        assert shown and words[answer - len(shown) : answer] == [words[number] for number in shown] == words[shown[0] :]


def test_copying_cannot_be_answered_by_place(documents):
    """Whoever always takes the first, second, third or last of the choices in the prompt is right one time in four."""
    items = copy([d.text for d in documents], 160, random.Random(1))
    for place in range(4):
        right = 0
        for item in items:
            words = item["prompt"].split()
            right += sorted(item["choices"], key=words.index)[place] == item["choices"][item["answer"]]
        assert right / len(items) == 0.25


def test_copying_from_a_text_of_few_words_has_no_items():
    assert copy(["In the beginning God created the heaven."], 10, random.Random(1)) == []


@pytest.mark.parametrize("counted", ["all words, held out", "last words, held out", "all words, trained on"])
@pytest.mark.parametrize("sign", [1, -1])
def test_last_words_cannot_be_answered_by_frequency_alone(validation, counted, sign):
    """On all of the real held-out text, over seeds: always the most frequent choice, or the rarest, is near chance."""
    held_out, trained = [d.text for d in validation], _training_texts()
    pattern = r"([A-Za-z]{3,})[.?!]" if counted.startswith("last") else r"[A-Za-z]{3,}"
    texts = trained if counted.endswith("on") else held_out
    frequency = Counter(word for text in texts for word in re.findall(pattern, text))
    right, items = 0.0, 0
    for seed in range(5):
        for item in last_word(held_out, 160, random.Random(seed)):
            scores = [sign * frequency[choice] for choice in item["choices"]]
            best = [number for number, score in enumerate(scores) if score == max(scores)]
            right, items = right + (item["answer"] in best) / len(best), items + 1
    assert items == 800
    assert abs(right / items - 0.25) < 0.06


def test_last_words_cannot_be_answered_by_length(documents):
    for item in last_word([d.text for d in documents], 60, random.Random(1)):
        assert len({len(choice) for choice in item["choices"]}) == 1


@pytest.fixture(scope="module")
def spelled(validation):
    return spelling([d.text for d in validation], 400, random.Random(1))


def test_spelling_asks_for_words_of_the_text_among_words_that_are_not(validation, spelled):
    text = " ".join(" ".join(d.text.split()) for d in validation)
    words = set(re.findall("[a-z]+", text.lower()))
    assert len(spelled) == 400
    for item in spelled:
        answer = item["choices"][item["answer"]]
        assert " ".join(f"{item['prompt']} {answer}".split()) in text
        assert [choice for choice in item["choices"] if choice in words] == [answer]
        assert {(len(choice), choice[: len(answer) // 2]) for choice in item["choices"]} == {
            (len(answer), answer[: len(answer) // 2])
        }


@pytest.mark.parametrize("told_by", ["letters", "pairs of letters", "the last three letters"])
def test_spelling_cannot_be_answered_by_letters_and_endings(spelled, told_by):
    """Of the text that a run is trained on: the likeliest choice by such counts is hardly better than a guess."""
    text = " ".join(_training_texts()).lower()
    letters, pairs = Counter(text), Counter(zip(text, text[1:], strict=False))
    endings = Counter(word[-3:] for word in re.findall("[a-z]+", text))
    score = {
        "letters": lambda word: sum(np.log(letters[letter]) for letter in word),
        "pairs of letters": lambda word: sum(
            np.log((pairs[a, b] + 0.1) / letters[a]) for a, b in zip(f" {word}", word, strict=False)
        ),
        "the last three letters": lambda word: endings[word[-3:]],
    }[told_by]
    right = np.mean([max(item["choices"], key=score) == item["choices"][item["answer"]] for item in spelled])
    assert abs(right - 0.25) < 0.1


@pytest.mark.parametrize(("name", "version"), [("bench_last_word", 3.0), ("bench_copy", 2.0)])
def test_tasks_whose_items_have_changed_have_a_new_version(name, version):
    task = yaml.safe_load((Path(suite.__file__).parent / "tasks" / f"{name}.yaml").read_text())
    assert task["metadata"]["version"] == version


def test_a_default_suite_has_items_enough_to_tell_a_tenth_from_chance(validation):
    """Two standard errors of an accuracy are then at most 0.1, whichever the task."""
    for name in CHOICES:
        assert len(_made(name, validation)) == PROBES[name][1] >= 100


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


def test_a_hub_task_without_a_network_is_told_before_anything_is_trained(monkeypatch):
    """lm-eval knows the name, so only loading the task shows that its data cannot be had."""
    from lm_eval.tasks import TaskManager

    def offline(self, names):
        raise ConnectionError("no route to the hub\nand a page of reasons")

    monkeypatch.setattr(TaskManager, "load", offline)
    with pytest.raises(UserError, match=r"piqa could not be loaded \(no route to the hub\).*need a network") as caught:
        load_tasks(["bench_copy", "piqa"])
    assert "\n" not in str(caught.value)
    load_tasks(["bench_copy"])
