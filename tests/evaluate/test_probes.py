"""The items of the offline tasks in a default run: which cues reveal the answers, and which do not."""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from bench.config.schema import DataConfig, EvaluateConfig
from bench.data import prepare
from bench.data.embedded import VALIDATION_BOOKS, king_james
from bench.evaluate import offline_documents
from bench.evaluate.probes import PROBES, Texts, agreement, copy, last_word, spelling

TRAINING = " ".join(text for (book, _), text in king_james().items() if book not in VALIDATION_BOOKS)
CHOICES = [name for name in PROBES if name != "bench_heldout"]


@pytest.fixture(scope="module")
def corpus():
    return prepare(DataConfig(name="kjv"))


@pytest.fixture(scope="module")
def texts(corpus):
    return Texts([document.text for document in corpus.validation], TRAINING)


@pytest.fixture(scope="module")
def items_of(corpus):
    return offline_documents(corpus, EvaluateConfig(tasks=list(PROBES)), 0)


def _answer(item):
    return item["choices"][item["answer"]]


def _found_by(score, items):
    """Accuracy of always taking the choice of the highest score, at random among ties."""
    right = 0.0
    for item in items:
        scores = [score(choice, item["prompt"]) for choice in item["choices"]]
        best = [number for number, each in enumerate(scores) if each == max(scores)]
        right += (item["answer"] in best) / len(best)
    return right / len(items)


def test_documents_depend_on_the_seed_alone(corpus, items_of):
    config = EvaluateConfig(tasks=list(PROBES))
    assert offline_documents(corpus, config, 0) == items_of != offline_documents(corpus, config, 1)


def test_default_run_has_enough_items_for_a_tenth_above_chance(items_of):
    """Two standard errors of an accuracy are then at most 0.1, whichever the task."""
    for name in CHOICES:
        assert len(items_of[name]) == PROBES[name].most >= 100


@pytest.mark.parametrize("name", CHOICES)
def test_position_of_the_answer_is_uniform(items_of, name):
    places = Counter(item["answer"] for item in items_of[name])
    share = len(items_of[name]) / len(items_of[name][0]["choices"])
    assert all(abs(count - share) < 4 * share**0.5 for count in places.values())


@pytest.mark.parametrize("name", ["bench_last_word", "bench_spelling"])
def test_passage_and_answer_are_in_the_validation_text(texts, items_of, name):
    text = "\n\n".join(texts.validation)
    for item in items_of[name]:
        assert item["prompt"] and f"{item['prompt']} {_answer(item)}" in text


@pytest.mark.parametrize("name", ["bench_last_word", "bench_spelling"])
def test_passage_and_answer_are_verbatim_in_program_text(name):
    """Words after an indentation, and parts of words with an apostrophe or a hyphen, are no answers."""
    comments = re.findall(r"[^.\n]{60,140}\.", TRAINING)[:400]
    code = "".join(
        f"    if well-known is not None:\n        observer.watch(it)  # shouldn't be mother-in-law's:{said}\n"
        for said in comments
    )
    items = PROBES[name].make(Texts([code], TRAINING + " shouldn mother observer" * 9), 400, random.Random(0))
    assert len(items) > 20
    for item in items:
        assert f"{item['prompt']} {_answer(item)}" in code
        assert _answer(item) not in ("shouldn", "mother", "observer")


def test_copy_choices_occur_once_in_the_list(items_of):
    """Every choice occurs exactly once in the list and not in the repeated part: counts do not help."""
    for item in items_of["bench_copy"]:
        words = item["prompt"].split()
        assert [words.count(choice) for choice in item["choices"]] == [1, 1, 1, 1]
        answer = words.index(_answer(item))
        assert len(words) - answer == item["distance"]
        shown = [number for number, word in enumerate(words) if word in words[:number]]
        assert shown and words[answer - len(shown) : answer] == [words[number] for number in shown] == words[shown[0] :]


def test_copy_position_alone_scores_chance(items_of):
    """Always taking the first, second, third or last choice of the prompt is right one time in four."""
    for place in range(4):
        right = 0
        for item in items_of["bench_copy"]:
            right += sorted(item["choices"], key=item["prompt"].split().index)[place] == _answer(item)
        assert right / len(items_of["bench_copy"]) == 0.25


def test_copy_of_a_text_with_few_words_has_no_items():
    assert copy(Texts(["In the beginning God created the heaven."], ""), 10, random.Random(1)) == []


@pytest.mark.parametrize("counted", ["all words, validation", "last words, validation", "all words, training"])
@pytest.mark.parametrize("sign", [1, -1])
def test_last_word_frequency_alone_scores_near_chance(texts, items_of, counted, sign):
    """Always the most frequent choice, or the rarest, is near chance."""
    pattern = r"([A-Za-z]{3,})[.?!]" if counted.startswith("last") else r"[A-Za-z]{3,}"
    counts = Counter(re.findall(pattern, TRAINING if counted.endswith("training") else " ".join(texts.validation)))
    assert abs(_found_by(lambda word, _: sign * counts[word], items_of["bench_last_word"]) - 0.25) < 0.06


def test_last_word_choices_are_unread_and_of_equal_length(items_of):
    for item in items_of["bench_last_word"]:
        assert not set(item["choices"]) & set(re.findall(r"[A-Za-z]+", item["prompt"]))
        assert len({len(choice) for choice in item["choices"]}) == 1


def test_last_word_answers_end_sentences(texts, items_of):
    text = "\n\n".join(texts.validation)
    for item in items_of["bench_last_word"]:
        assert any(f"{item['prompt']} {_answer(item)}{mark}" in text for mark in ".?!")


def test_spelling_has_one_known_word_among_strings_that_are_none(texts, items_of):
    learned = Counter(re.findall("[a-z]+", TRAINING.lower()))
    validation = set(re.findall("[a-z]+", " ".join(texts.validation).lower()))
    fours = {word[at : at + 4] for word in learned for at in range(len(word) - 3)}
    for item in items_of["bench_spelling"]:
        answer = _answer(item)
        assert learned[answer] >= 5
        assert [choice for choice in item["choices"] if choice in learned or choice in validation] == [answer]
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


@pytest.mark.parametrize("cue", ["letters", "pairs", "threes", "last two", "last three", "vowels"])
def test_spelling_by_letter_statistics_scores_near_chance(items_of, cue):
    """The most likely choice by counts of the training text is hardly better than a guess."""
    words = re.findall("[a-z]+", TRAINING.lower())
    text = " ".join(words)
    if cue in ("letters", "pairs", "threes"):
        size = ["letters", "pairs", "threes"].index(cue) + 1
        score = _joined(Counter(text[at : at + size] for at in range(len(text) - size)), size)
    else:
        kept = {
            "last two": lambda word: word[-2:],
            "last three": lambda word: word[-3:],
            "vowels": lambda word: re.sub("[a-z]", "c", re.sub("[aeiouy]", "V", word)),
        }[cue]
        counts = Counter(map(kept, words))

        def score(word, _):
            return counts[kept(word)]

    assert abs(_found_by(score, items_of["bench_spelling"]) - 0.25) < (0.12 if cue == "threes" else 0.08)


def test_agreement_choices_differ_only_in_the_verb():
    for item in agreement(Texts([], ""), 100, random.Random(1)):
        (one, rest), (other, same) = (choice.split(" ", 1) for choice in item["choices"])
        assert one != other and rest == same


@pytest.mark.parametrize(
    "text", ["", "In the beginning.", "太初，神创造天地。" * 400, "IN THE BEGINNING. " * 300, "x" * 5000]
)
def test_unsuitable_text_gives_few_items_and_no_error(text):
    for make in (last_word, spelling):
        items = make(Texts([text], text), 100, random.Random(0))
        assert len(items) < 50 and all(item["prompt"] for item in items)


def test_items_are_distinct(items_of):
    for name in ("bench_spelling", "bench_copy"):
        items = sorted(f"{item['prompt']} {item['choices']}" for item in items_of[name])
        assert all(one != other for one, other in pairwise(items))
