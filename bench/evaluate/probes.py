"""The items of the offline tasks: made from validation text, or generated, from a fixed seed."""

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
_NEIGHBOURS = 12  # wrong answers come from this many words on either side of the answer in frequency
_COPY_LENGTHS = (5, 6, 7, 8, 10, 12)
_CONTEXT_CHARACTERS = {"last word": 128, "spelling": 64}  # of a passage before the word to predict
_LEARNED = 5  # occurrences in the training text that a word needs


@dataclass(frozen=True)
class Texts:
    """What items are made from: validation documents, and the training text or its beginning."""

    validation: Sequence[str]
    training: str


def validation_text(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Whole documents, for bits per byte."""
    return [{"text": text} for text in texts.validation[:count]]


def last_word(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """A passage up to the last word of a sentence; that word, and three others of its length and similar frequency.

    The others end sentences of the same text about as often. In turn none, one, two or all of them do so more often
    than the answer, and none of the four occurs in the passage. So the answer cannot be guessed from length,
    frequency, position or repetition.
    """
    length = _CONTEXT_CHARACTERS["last word"]
    endings = [
        (text[match.start() - length : match.start()], match[1])
        for text in texts.validation
        for match in re.finditer(r"(?<=\S )([A-Za-z]{3,})[.?!]", text)
        if match.start() >= length
    ]
    rng.shuffle(endings)
    ends = Counter(word for _, word in endings)  # as often as a word ends sentences; the shuffle settles ties
    words = Counter(word for text in texts.validation for word in _WORD.findall(text))
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
    """Vocabulary: a passage and its next word, among three strings that are no words.

    The word is in the training text. The others are in neither text: they begin as the word does and end as random
    other words do after the same three letters. So they are as long, and each of their four-letter sequences occurs
    in some word. On the King James text, unigram, bigram and suffix counts find 0.20 to 0.32 of the words, trigrams
    0.33 to 0.36 and 4-grams 0.55: a higher score needs knowledge of words.
    """
    learned = Counter(re.findall(r"[a-z]+", texts.training.lower()))
    known = learned.keys() | {word for text in texts.validation for word in re.findall(r"[a-z]+", text.lower())}
    ends: dict[tuple[str, int], list[str]] = defaultdict(list)  # after which letters, how long
    for word in sorted(learned):
        for length in range(1, len(word) - 2):
            ends[word[-length - 3 : -length], length].append(word[-length:])
    length = _CONTEXT_CHARACTERS["spelling"]
    passages: dict[str, list[str]] = defaultdict(list)
    for text in texts.validation:
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
    """`passage` without its partial first word, unless it is the only one, and without the space at its end."""
    return passage[passage.find(" ", 0, -1) + 1 : -1]


def copy(texts: Texts, count: int, rng: random.Random) -> list[Doc]:
    """Induction: a list of words and part of it repeated; the answer is the word that followed the first time.

    The words are drawn at random from the validation text. The wrong answers are words of the list, in turn none, one,
    two or all of them from before the answer. Like it they occur once in the prompt, so only the order helps.
    """
    words = sorted({word.lower() for text in texts.validation for word in _WORD.findall(text)})
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
        documents.append(document | {"distance": length - start})  # words back to the answer
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
    """Which verb form agrees with its subject, adjacent or separated by words of the other number.

    Archaic and modern forms. The two sentences differ only in the verb.
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
    """How a task's items are made, how many at most, and how many it needs to be scored."""

    make: Callable[[Texts, int, random.Random], list[Doc]]
    most: int
    fewest: int


PROBES: dict[str, Probe] = {
    "bench_heldout": Probe(validation_text, 200, 1),
    "bench_last_word": Probe(last_word, 800, 50),
    "bench_spelling": Probe(spelling, 400, 50),
    "bench_copy": Probe(copy, 160, 50),
    "bench_agreement": Probe(agreement, 200, 50),
}
