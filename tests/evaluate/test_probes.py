"""The offline suite's documents, as a default run is asked them: what tells the answers, and what does not."""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from bench.config.schema import DataConfig, EvaluateConfig
from bench.data import prepare
from bench.data.sources import VALIDATION_BOOKS, king_james
from bench.evaluate import offline_documents
from bench.evaluate.probes import PROBES, Texts, agreement, copy, last_word, spelling

TRAINED_ON = " ".join(text for (book, _), text in king_james().items() if book not in VALIDATION_BOOKS)
CHOICES = [name for name in PROBES if name != "bench_heldout"]


@pytest.fixture(scope="module")
def corpus():
    return prepare(DataConfig(name="kjv"))


@pytest.fixture(scope="module")
def texts(corpus):
    return Texts([document.text for document in corpus.validation], TRAINED_ON)


@pytest.fixture(scope="module")
def asked(corpus):
    return offline_documents(corpus, EvaluateConfig(tasks=list(PROBES)), 0)


def _answer(item):
    return item["choices"][item["answer"]]


def _found_by(score, items):
    """The share of items that somebody answers who takes the choice of the highest score; of equal ones, any."""
    right = 0.0
    for item in items:
        scores = [score(choice, item["prompt"]) for choice in item["choices"]]
        best = [number for number, each in enumerate(scores) if each == max(scores)]
        right += (item["answer"] in best) / len(best)
    return right / len(items)


def test_documents_depend_on_the_seed_alone(corpus, asked):
    config = EvaluateConfig(tasks=list(PROBES))
    assert offline_documents(corpus, config, 0) == asked != offline_documents(corpus, config, 1)


def test_a_default_run_is_asked_enough_to_tell_a_tenth_from_chance(asked):
    """Two standard errors of an accuracy are then at most 0.1, whichever the task."""
    for name in CHOICES:
        assert len(asked[name]) == PROBES[name].most >= 100


@pytest.mark.parametrize("name", CHOICES)
def test_the_place_of_the_answer_among_the_choices_tells_nothing(asked, name):
    places = Counter(item["answer"] for item in asked[name])
    share = len(asked[name]) / len(asked[name][0]["choices"])
    assert all(abs(count - share) < 4 * share**0.5 for count in places.values())


@pytest.mark.parametrize("name", ["bench_last_word", "bench_spelling"])
def test_a_passage_and_its_answer_stand_in_the_held_out_text(texts, asked, name):
    text = "\n\n".join(texts.held_out)
    for item in asked[name]:
        assert item["prompt"] and f"{item['prompt']} {_answer(item)}" in text


@pytest.mark.parametrize("name", ["bench_last_word", "bench_spelling"])
def test_in_program_text_too_a_passage_and_its_answer_stand_as_they_are(name):
    """Words after an indentation, and parts of words with an apostrophe or a hyphen, are not asked for."""
    comments = re.findall(r"[^.\n]{60,140}\.", TRAINED_ON)[:400]
    code = "".join(
        f"    if well-known is not None:\n        observer.watch(it)  # shouldn't be mother-in-law's:{said}\n"
        for said in comments
    )
    items = PROBES[name].make(Texts([code], TRAINED_ON + " shouldn mother observer" * 9), 400, random.Random(0))
    assert len(items) > 20
    for item in items:
        assert f"{item['prompt']} {_answer(item)}" in code
        assert _answer(item) not in ("shouldn", "mother", "observer")


def test_copying_needs_order_not_frequency(asked):
    """Every choice stands exactly once in the list, and none in the piece that comes again: counts tell nothing."""
    for item in asked["bench_copy"]:
        words = item["prompt"].split()
        assert [words.count(choice) for choice in item["choices"]] == [1, 1, 1, 1]
        answer = words.index(_answer(item))
        assert len(words) - answer == item["distance"]
        shown = [number for number, word in enumerate(words) if word in words[:number]]
        assert shown and words[answer - len(shown) : answer] == [words[number] for number in shown] == words[shown[0] :]


def test_copying_cannot_be_answered_by_place(asked):
    """Whoever always takes the first, second, third or last of the choices in the prompt is right one time in four."""
    for place in range(4):
        right = 0
        for item in asked["bench_copy"]:
            right += sorted(item["choices"], key=item["prompt"].split().index)[place] == _answer(item)
        assert right / len(asked["bench_copy"]) == 0.25


def test_copying_from_a_text_of_few_words_has_no_items():
    assert copy(Texts(["In the beginning God created the heaven."], ""), 10, random.Random(1)) == []


@pytest.mark.parametrize("counted", ["all words, held out", "last words, held out", "all words, trained on"])
@pytest.mark.parametrize("sign", [1, -1])
def test_last_words_cannot_be_answered_by_frequency_alone(texts, asked, counted, sign):
    """Always the most frequent choice, or the rarest, is near chance."""
    pattern = r"([A-Za-z]{3,})[.?!]" if counted.startswith("last") else r"[A-Za-z]{3,}"
    counts = Counter(re.findall(pattern, TRAINED_ON if counted.endswith("on") else " ".join(texts.held_out)))
    assert abs(_found_by(lambda word, _: sign * counts[word], asked["bench_last_word"]) - 0.25) < 0.06


def test_last_words_cannot_be_answered_by_what_was_read_nor_by_length(asked):
    for item in asked["bench_last_word"]:
        assert not set(item["choices"]) & set(re.findall(r"[A-Za-z]+", item["prompt"]))
        assert len({len(choice) for choice in item["choices"]}) == 1


def test_last_words_end_sentences(texts, asked):
    text = "\n\n".join(texts.held_out)
    for item in asked["bench_last_word"]:
        assert any(f"{item['prompt']} {_answer(item)}{mark}" in text for mark in ".?!")


def test_spelling_asks_for_a_word_that_was_trained_on_among_some_that_are_none(texts, asked):
    learned = Counter(re.findall("[a-z]+", TRAINED_ON.lower()))
    held_out = set(re.findall("[a-z]+", " ".join(texts.held_out).lower()))
    fours = {word[at : at + 4] for word in learned for at in range(len(word) - 3)}
    for item in asked["bench_spelling"]:
        answer = _answer(item)
        assert learned[answer] >= 5
        assert [choice for choice in item["choices"] if choice in learned or choice in held_out] == [answer]
        for choice in item["choices"]:
            assert (len(choice), choice[: len(answer) // 2]) == (len(answer), answer[: len(answer) // 2])
            assert all(choice[at : at + 4] in fours for at in range(len(choice) - 3))


def _joined(counts, size):
    """The log-probability of a word's letters, each after the size - 1 before it."""
    before = Counter()
    for piece, count in counts.items():
        before[piece[:-1]] += count

    def score(word, _):
        padded = f" {word}"
        pieces = [padded[at : at + size] for at in range(len(padded) - size + 1)]
        return sum(np.log((counts[piece] + 0.1) / (before[piece[:-1]] + 2.6)) for piece in pieces)

    return score


@pytest.mark.parametrize("told_by", ["letters", "pairs", "threes", "last two", "last three", "vowels"])
def test_spelling_cannot_be_answered_by_letters_and_endings(asked, told_by):
    """Of the text that a run is trained on: the likeliest choice by such counts is hardly better than a guess."""
    words = re.findall("[a-z]+", TRAINED_ON.lower())
    text = " ".join(words)
    if told_by in ("letters", "pairs", "threes"):
        size = ["letters", "pairs", "threes"].index(told_by) + 1
        score = _joined(Counter(text[at : at + size] for at in range(len(text) - size)), size)
    else:
        kept = {
            "last two": lambda word: word[-2:],
            "last three": lambda word: word[-3:],
            "vowels": lambda word: re.sub("[a-z]", "c", re.sub("[aeiouy]", "V", word)),
        }[told_by]
        counts = Counter(map(kept, words))

        def score(word, _):
            return counts[kept(word)]

    assert abs(_found_by(score, asked["bench_spelling"]) - 0.25) < (0.12 if told_by == "threes" else 0.08)


def test_agreement_pairs_differ_in_the_verb_alone():
    for item in agreement(Texts([], ""), 100, random.Random(1)):
        (one, rest), (other, same) = (choice.split(" ", 1) for choice in item["choices"])
        assert one != other and rest == same


@pytest.mark.parametrize(
    "text", ["", "In the beginning.", "太初，神创造天地。" * 400, "IN THE BEGINNING. " * 300, "x" * 5000]
)
def test_text_that_a_task_cannot_be_made_from_gives_few_items_and_no_error(text):
    for make in (last_word, spelling):
        items = make(Texts([text], text), 100, random.Random(0))
        assert len(items) < 50 and all(item["prompt"] for item in items)


def test_every_document_is_another(asked):
    for name in ("bench_spelling", "bench_copy"):
        told = sorted(f"{item['prompt']} {item['choices']}" for item in asked[name])
        assert all(one != other for one, other in pairwise(told))
