"""Which documents are for training and which for validation; no document is ever on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

Reader = Callable[[], Iterator[str]]  # reads the same documents from the start each time it is called

_ONE_IN = 20  # documents is for validation


@dataclass(frozen=True)
class Split:
    train: Reader
    validation: list[str]  # in the order of their hashes, so that any prefix is a sample
    clusters: list[str] | None = None  # the book or speech that each validation document is of; None: it stands alone


def document_hash(text: str) -> bytes:
    """Equal for equal texts; its order is unrelated to anything else about them."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def split_by_source(train: Reader, validation: Reader) -> Split:
    """A split that the source defines, without the training documents that are also in validation."""
    documents = sorted(validation(), key=document_hash)
    return Split(_without(train, documents), documents)


def split_by_hash(read: Reader, limit: int) -> Split:
    """Takes the documents of smallest hash for validation: one in 20 distinct ones, at most `limit`.

    The choice does not depend on the documents' order, and exact copies stay on one side. With fewer than
    20 distinct documents, validation takes the end of each: a twentieth of its length, cut between
    paragraphs, lines or words where possible.
    """
    seen: set[bytes] = set()

    def distinct() -> Iterator[tuple[bytes, str]]:
        for text in read():
            key = document_hash(text)
            if key not in seen:
                seen.add(key)
                yield key, text

    candidates = [text for _, text in nsmallest(max(limit, _ONE_IN), distinct())]
    if len(seen) >= _ONE_IN:
        validation = candidates[: min(limit, len(seen) // _ONE_IN)]
        return Split(_without(read, validation), validation)
    tails = [text[_cut(text) :] for text in candidates]
    return Split(lambda: (text[: _cut(text)] for text in read()), [tail for tail in tails if tail.strip()][:limit])


def _without(read: Reader, texts: list[str]) -> Reader:
    excluded = {document_hash(text) for text in texts}
    return lambda: (text for text in read() if document_hash(text) not in excluded)


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
