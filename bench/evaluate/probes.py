"""The offline suite's documents: made from held-out text, or generated, from a fixed seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Doc = dict[str, Any]

_WORD = re.compile(r"[A-Za-z]{3,10}")
_CONTEXT_CHARACTERS = 128  # of a passage before the word to be guessed
_COPY_LENGTHS = (2, 3, 4, 6, 8, 12)


def heldout(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """Whole documents, for bits per byte."""
    return [{"text": text} for text in texts[:count]]


def last_word(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """A passage up to the last word of a sentence; that word, and three of the same text and length.

    The distractors end other sentences, so that being a word that ends sentences gives nothing away.
    """
    endings = []
    for text in texts:
        for match in re.finditer(r"([A-Za-z]{3,})[.?!]", text):
            if match.start() >= _CONTEXT_CHARACTERS:
                endings.append((text[match.start() - _CONTEXT_CHARACTERS : match.start()], match[1]))
    by_length: dict[int, list[str]] = {}
    for _, word in endings:
        by_length.setdefault(len(word), [])
        if word not in by_length[len(word)]:
            by_length[len(word)].append(word)
    rng.shuffle(endings)
    documents = []
    for passage, word in endings:
        near = sorted({w for n in (len(word), len(word) - 1, len(word) + 1) for w in by_length.get(n, [])} - {word})
        if len(near) >= 3 and passage[-1].isspace():
            start = passage.find(" ") + 1  # begin with a whole word
            documents.append(_choice(passage[start:].rstrip(), word, rng.sample(near, 3), rng))
        if len(documents) == count:
            break
    return documents


def copy(texts: Sequence[str], count: int, rng: random.Random) -> list[Doc]:
    """Induction: a list of words, the list again up to some word; what comes next is what came next before.

    The words are drawn at random from the held-out text, and the wrong answers are words of the list
    that stand equally often in the prompt; so only the order, kept in memory, tells.
    """
    words = sorted({word.lower() for text in texts for word in _WORD.findall(text)})
    documents = []
    for number in range(count):
        length = _COPY_LENGTHS[number % len(_COPY_LENGTHS)]
        listed = rng.sample(words, length + 4)
        shown = rng.randrange(1, length + 1)  # how much of the second round is there
        answer, wrong = listed[shown], [w for w in listed[shown + 1 :]]
        prompt = " ".join([*listed, *listed[:shown]])
        documents.append(_choice(prompt, answer, rng.sample(wrong, 3), rng) | {"distance": len(listed)})
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
    "bench_last_word": (last_word, 160),
    "bench_copy": (copy, 160),
    "bench_agreement": (agreement, 200),
}
