"""The offline suite's documents: made from held-out text, or generated, from a fixed seed."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

Doc = dict[str, Any]

_WORD = re.compile(r"[A-Za-z]{3,10}")
_CONTEXT_CHARACTERS = 128  # of a passage before the word to be guessed
_NEIGHBOURS = 12  # words next to the answer in frequency, on either side, that others are drawn from
_COPY_LENGTHS = (5, 6, 7, 8, 10, 12)
_SPELLING_CONTEXT_CHARACTERS = 64


def heldout(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """Whole documents, for bits per byte."""
    return [{"text": text} for text in texts[:count]]


def last_word(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """A passage up to the last word of a sentence; that word, and three others of its length and about its frequency.

    The others end sentences of the same text about as often, in turn none, one, two or all of them more often than
    the answer: so neither length, nor ending sentences, nor being frequent gives anything away.
    """
    endings = []
    for text in texts:
        for match in re.finditer(r"([A-Za-z]{3,})[.?!]", text):
            if match.start() >= _CONTEXT_CHARACTERS:
                endings.append((text[match.start() - _CONTEXT_CHARACTERS : match.start()], match[1]))
    rng.shuffle(endings)
    ends = Counter(word for _, word in endings)  # as often as a word ends sentences; the shuffle settles ties
    words = Counter(word for text in texts for word in _WORD.findall(text))
    by_frequency = sorted(ends, key=lambda word: (-ends[word], -words[word]))
    place = {word: number for number, word in enumerate(by_frequency)}
    documents: list[Doc] = []
    for passage, word in endings:
        alike = [other for other in by_frequency if other != word and len(other) == len(word)]
        split = bisect_left(alike, place[word], key=place.__getitem__)
        more = len(documents) % 4  # of the three are more frequent
        above, below = alike[max(0, split - _NEIGHBOURS) : split], alike[split : split + _NEIGHBOURS]
        if len(above) >= more and len(below) >= 3 - more and passage[-1].isspace():
            wrong = rng.sample(above, more) + rng.sample(below, 3 - more)
            start = passage.find(" ") + 1  # begin with a whole word
            documents.append(_choice(passage[start:].rstrip(), word, wrong, rng))
        if len(documents) == count:
            break
    return documents


def copy(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """Induction: a list of words, a piece of it again; what comes next is what came next before.

    The words are drawn at random from the held-out text. The wrong answers are words of the list, in turn none, one,
    two or all of them from before the answer; like it they stand in the prompt once. So only the order tells.
    """
    words = sorted({word.lower() for text in texts for word in _WORD.findall(text)})
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


def spelling(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """Memory for words: a passage and its next word, among three that do not occur in the text.

    Those begin as the word does, and end as other words of the text do, drawn at random, after the same letter. So
    they are as long, and every two letters in them stand together in some word: only knowing whole words tells.
    """
    known = {word.lower() for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    ends: dict[tuple[str, int], list[str]] = defaultdict(list)  # after which letter, how long
    for word in sorted(known):
        for length in range(1, len(word)):
            ends[word[-length - 1], length].append(word[-length:])
    passages: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        for match in re.finditer(r"(?<= )[a-z]{6,10}\b", text):
            if match.start() >= _SPELLING_CONTEXT_CHARACTERS:
                passages[match[0]].append(text[match.start() - _SPELLING_CONTEXT_CHARACTERS : match.start()])
    documents: list[Doc] = []
    for word in rng.sample(sorted(passages), len(passages)):
        kept = len(word) // 2
        others = ends[word[kept - 1], len(word) - kept]  # as often as words end so
        made = list(dict.fromkeys(word[:kept] + end for end in rng.sample(others, len(others))))
        made = [other for other in made if other not in known]
        if len(made) >= 3:
            passage = rng.choice(passages[word])
            start = passage.find(" ") + 1  # begin with a whole word
            documents.append(_choice(passage[start:].rstrip(), word, made[:3], rng))
        if len(documents) == count:
            break
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


def agreement(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
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


PROBES: dict[str, tuple[Callable[[Sequence[str], int, random.Random], list[Doc]], int]] = {
    "bench_heldout": (heldout, 200),
    "bench_last_word": (last_word, 800),
    "bench_spelling": (spelling, 400),
    "bench_copy": (copy, 160),
    "bench_agreement": (agreement, 200),
}
