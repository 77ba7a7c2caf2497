"""The offline suite's documents: made from held-out text, or generated, from a fixed seed."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Doc = dict[str, Any]

_WORD = re.compile(r"[A-Za-z]{3,10}")
_NEIGHBOURS = 12  # words next to the answer in frequency, on either side, that others are drawn from
_COPY_LENGTHS = (5, 6, 7, 8, 10, 12)
_CONTEXT_CHARACTERS = {"last word": 128, "spelling": 64}  # of a passage before the word that is asked for
_LEARNED = 5  # times a word stands in what was trained on, to be asked for


@dataclass(frozen=True)
class Texts:
    """What tasks are made from: documents held out, and text that was trained on, or its beginning."""

    held_out: Sequence[str]
    trained_on: str


def heldout(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Whole documents, for bits per byte."""
    return [{"text": text} for text in texts.held_out[:count]]


def last_word(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """A passage up to the last word of a sentence; that word, and three others of its length and about its frequency.

    The others end sentences of the same text about as often, in turn none, one, two or all of them more often than
    the answer, and none of the four stands in the passage: so neither length, nor ending sentences, nor being frequent,
    nor having been read gives anything away.
    """
    length = _CONTEXT_CHARACTERS["last word"]
    endings = [
        (text[match.start() - length : match.start()], match[1])
        for text in texts.held_out
        for match in re.finditer(r"(?<=\S )([A-Za-z]{3,})[.?!]", text)
        if match.start() >= length
    ]
    rng.shuffle(endings)
    ends = Counter(word for _, word in endings)  # as often as a word ends sentences; the shuffle settles ties
    words = Counter(word for text in texts.held_out for word in _WORD.findall(text))
    by_frequency = sorted(ends, key=lambda word: (-ends[word], -words[word]))
    place = {word: number for number, word in enumerate(by_frequency)}
    documents: list[Doc] = []
    for passage, word in endings:
        read = set(re.findall(r"[A-Za-z]+", passage))
        alike = [other for other in by_frequency if other != word and len(other) == len(word) and other not in read]
        split = bisect_left(alike, place[word], key=place.__getitem__)
        more = len(documents) % 4  # of the three are more frequent
        above, below = alike[max(0, split - _NEIGHBOURS) : split], alike[split : split + _NEIGHBOURS]
        if word not in read and len(above) >= more and len(below) >= 3 - more:
            wrong = rng.sample(above, more) + rng.sample(below, 3 - more)
            documents.append(_choice(_from_a_word(passage), word, wrong, rng))
        if len(documents) == count:
            break
    return documents


def spelling(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Memory for words: a passage and its next word, among three that are none.

    The word was trained on. The others, which stand neither there nor in the held-out text, begin as it does and go
    on as other words, drawn at random, do after the same three letters. So they are as long, and every four
    letters in them stand together in some word. Of the King James text, counts of letters, pairs and endings find
    0.20 to 0.32 of the words, of letters in threes 0.33 to 0.36 and in fours 0.55: to know more is to know words.
    """
    learned = Counter(re.findall(r"[a-z]+", texts.trained_on.lower()))
    known = learned.keys() | {word for text in texts.held_out for word in re.findall(r"[a-z]+", text.lower())}
    ends: dict[tuple[str, int], list[str]] = defaultdict(list)  # after which letters, how long
    for word in sorted(learned):
        for length in range(1, len(word) - 2):
            ends[word[-length - 3 : -length], length].append(word[-length:])
    length = _CONTEXT_CHARACTERS["spelling"]
    passages: dict[str, list[str]] = defaultdict(list)
    for text in texts.held_out:
        for match in re.finditer(r"(?<=\S )[a-z]{6,10}(?![\w'’-])", text):
            if match.start() >= length and learned[match[0]] >= _LEARNED:
                passages[match[0]].append(text[match.start() - length : match.start()])
    documents: list[Doc] = []
    for word in rng.sample(sorted(passages), len(passages)):
        kept = len(word) // 2
        others = ends[word[kept - 3 : kept], len(word) - kept]  # as often as words end so
        made = dict.fromkeys(word[:kept] + end for end in rng.sample(others, len(others)))
        wrong = [other for other in made if other not in known][:3]
        if len(wrong) == 3:
            documents.append(_choice(_from_a_word(rng.choice(passages[word])), word, wrong, rng))
        if len(documents) == count:
            break
    return documents


def _from_a_word(passage: str) -> str:
    """Without what is left of its first word, unless there is no other, and without the space at its end."""
    return passage[passage.find(" ", 0, -1) + 1 : -1]


def copy(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Induction: a list of words, a piece of it again; what comes next is what came next before.

    The words are drawn at random from the held-out text. The wrong answers are words of the list, in turn none, one,
    two or all of them from before the answer; like it they stand in the prompt once. So only the order tells.
    """
    words = sorted({word.lower() for text in texts.held_out for word in _WORD.findall(text)})
    if len(words) < max(_COPY_LENGTHS):
        return []
    documents = []
    for number in range(count):
        before, length = number % 4, _COPY_LENGTHS[number // 4 % len(_COPY_LENGTHS)]
        listed = rng.sample(words, length)
        shown = rng.randrange(1, length - 3)  # words of the piece; with the answer and three others at most all
        start = rng.randrange(before, length - shown - 3 + before)
        answer = start + shown
        wrong = rng.sample(listed[:start], before) + rng.sample(listed[answer + 1 :], 3 - before)
        document = _choice(" ".join([*listed, *listed[start:answer]]), listed[answer], wrong, rng)
        documents.append(document | {"distance": length - start})  # words back to where the answer stands
    return documents


# subject -> the verb forms that agree with it; each list is one person and number.
_SUBJECTS = {
    "thou": ("thou",),
    "he": ("he", "the king", "the man", "the servant", "the woman", "the prophet"),
    "they": ("they", "the kings", "the men", "the servants", "the women", "the prophets"),
}
_VERBS = (
    {"thou": "hast", "he": "hath", "they": "have"},
    {"thou": "art", "he": "is", "they": "are"},
    {"thou": "shalt", "he": "shall", "they": "shall"},
    {"thou": "wast", "he": "was", "they": "were"},
    {"thou": "knowest", "he": "knoweth", "they": "know"},
    {"thou": "goest", "he": "goeth", "they": "go"},
)
_BETWEEN = {
    0: ("",),
    1: (" of the city", " of the house", " in the land"),
    2: (" that came out of the cities", " which dwelt among the people of the lands", " that stood by the gates"),
}
_OPENINGS = ("And ", "For ", "Behold, ", "Now ", "Then said he, ", "")
_ENDINGS = (" in the house of the LORD", " before all the people", " in the land", " unto this day")


def agreement(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Which verb form agrees with its subject, near or past words of the other number in between.

    Archaic and modern forms; the two sentences differ in the verb alone.
    """
    documents: list[Doc] = []
    while len(documents) < count:
        verb = rng.choice(_VERBS)
        person, other = rng.sample(sorted(verb), 2)
        if verb[person] == verb[other]:
            continue
        distance = 0 if person == "thou" else len(documents) % 3
        subject = rng.choice(_SUBJECTS[person] if distance == 0 else _SUBJECTS[person][1:])
        prompt = f"{rng.choice(_OPENINGS)}{subject}{rng.choice(_BETWEEN[distance])}"
        ending = rng.choice(_ENDINGS)
        document = _choice(prompt[0].upper() + prompt[1:], verb[person] + ending, [verb[other] + ending], rng)
        documents.append(document | {"distance": distance})
    return documents


def _choice(prompt: str, answer: str, wrong: Sequence[str], rng: random.Random) -> Doc:
    choices = [answer, *wrong]
    rng.shuffle(choices)
    return {"prompt": prompt, "choices": choices, "answer": choices.index(answer)}


class Probe(NamedTuple):
    """How a task's documents are made, at most how many, and how few say too little to be scored."""

    make: Callable[[Texts, int, random.Random], list[Doc]]
    most: int
    fewest: int


PROBES: dict[str, Probe] = {
    "bench_heldout": Probe(heldout, 200, 1),
    "bench_last_word": Probe(last_word, 800, 50),
    "bench_spelling": Probe(spelling, 400, 50),
    "bench_copy": Probe(copy, 160, 50),
    "bench_agreement": Probe(agreement, 200, 50),
}
