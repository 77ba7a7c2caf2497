"""Which documents are for training and which for validation; no document, nor a near copy of it, is on both sides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from unicodedata import normalize

from bench.data.progress import shown

Reader = Callable[[], Iterator[str]]  # reads the same documents from the start each time it is called

_ONE_IN = 20  # documents is for validation
_WORDS_ONLY = bytes(code if chr(code).isalnum() else 32 for code in range(128)).ljust(256)


@dataclass
class Copies:
    """Documents that were left out because they have the words of another one."""

    validation: int = 0  # of an earlier validation document
    training: int = 0  # of a validation document, in the last complete pass over the training text


@dataclass(frozen=True)
class Split:
    train: Reader
    validation: list[str]  # in the order of their hashes, so that any prefix is a sample
    clusters: list[str] | None = None  # the book or speech that each validation document is of; None: it stands alone
    copies: Copies = field(default_factory=Copies)


def document_hash(text: str) -> bytes:
    """Equal for equal texts; its order is unrelated to anything else about them."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def copy_hash(text: str) -> bytes:
    """Equal for texts of the same words, whatever their case, spaces, line ends, punctuation and Unicode form.

    A text without letters and digits equals its own copies only.
    """
    if text.isascii():  # the same by a faster way
        words = b" ".join(text.lower().encode().translate(_WORDS_ONLY).split()).decode()
    else:
        words = " ".join(re.findall(r"[^\W_]+", normalize("NFKC", text).casefold()))
    return document_hash(words or text)


def split_by_source(train: Reader, validation: Reader) -> Split:
    """A split that the source defines. Copies within validation count once; training loses those of validation."""
    documents = sorted(shown(validation(), "reading validation"), key=document_hash)
    first = {copy_hash(text): text for text in reversed(documents)}
    kept = sorted(first.values(), key=document_hash)
    return _without_copies(train, kept, len(documents) - len(kept))


def split_by_hash(read: Reader, limit: int) -> Split:
    """Takes the documents of smallest hash for validation: one in 20 distinct ones, at most `limit`.

    The choice does not depend on the documents' order, and copies stay on one side. With fewer than 20 distinct
    documents, validation takes the end of each: a twentieth of its length, cut between paragraphs, lines or words
    where possible.
    """
    wanted = max(limit, _ONE_IN)
    seen: set[bytes] = set()
    smallest: dict[bytes, tuple[bytes, str]] = {}  # of each document the copy of smallest hash
    for text in shown(read(), "reading"):
        key, rank = copy_hash(text), document_hash(text)
        seen.add(key)
        if key not in smallest or rank < smallest[key][0]:
            smallest[key] = rank, text
        if len(smallest) > 2 * wanted:
            smallest = dict(nsmallest(wanted, smallest.items(), key=lambda item: item[1][0]))
    candidates = [text for _, text in sorted(smallest.values())][:wanted]
    if len(seen) >= _ONE_IN:
        return _without_copies(read, candidates[: min(limit, len(seen) // _ONE_IN)], 0)
    tails = [text[_cut(text) :] for text in candidates]
    return Split(lambda: (text[: _cut(text)] for text in read()), [tail for tail in tails if tail.strip()][:limit])


def _without_copies(read: Reader, validation: list[str], copies_within: int) -> Split:
    copies, excluded = Copies(copies_within), {copy_hash(text) for text in validation}

    def train() -> Iterator[str]:
        found = 0
        for text in read():
            if copy_hash(text) in excluded:
                found += 1
            else:
                yield text
        copies.training = found

    return Split(train, validation, copies=copies)


def _cut(text: str) -> int:
    """Where the last twentieth begins, or up to another twentieth earlier."""
    latest = len(text) - len(text) // _ONE_IN
    return place_to_cut(text, latest - len(text) // _ONE_IN, latest)


def place_to_cut(text: str, earliest: int, latest: int) -> int:
    """The end of the last paragraph, line or word that ends between the two places; `latest` if there is none."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, earliest, latest)
        if at > 0:
            return at + len(mark)
    return latest
