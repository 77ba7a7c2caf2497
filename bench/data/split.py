"""Which documents train and which are held out; no document is ever on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

Reader = Callable[[], Iterator[str]]  # reads the same documents from the start each time it is called

_SHARE = 20  # one in so many is held out


@dataclass(frozen=True)
class Split:
    train: Reader
    validation: list[str]


def document_hash(text: str) -> bytes:
    """Equal for equal texts; its order is unrelated to anything else about them."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def split_by_source(train: Reader, validation: Reader) -> Split:
    """A split that the source makes itself, less the training documents that validation has too."""
    held_out = list(validation())
    return Split(_without(train, held_out), held_out)


def hold_out(read: Reader, limit: int) -> Split:
    """Holds out the documents of smallest hash: one in 20 distinct ones, at most `limit`.

    The choice does not depend on the documents' order, and exact copies stay on one side. Where there
    are fewer than 20 distinct documents, the end of each is held out instead, a twentieth of its length,
    cut between paragraphs, lines or words where possible.
    """
    seen: set[bytes] = set()

    def distinct() -> Iterator[tuple[bytes, str]]:
        for text in read():
            key = document_hash(text)
            if key not in seen:
                seen.add(key)
                yield key, text

    candidates = [text for _, text in nsmallest(max(limit, _SHARE), distinct())]
    if len(seen) >= _SHARE:
        held_out = candidates[: min(limit, len(seen) // _SHARE)]
        return Split(_without(read, held_out), held_out)
    tails = [text[_cut(text) :] for text in candidates]
    return Split(lambda: (text[: _cut(text)] for text in read()), [tail for tail in tails if tail.strip()][:limit])


def _without(read: Reader, texts: list[str]) -> Reader:
    held_out = {document_hash(text) for text in texts}
    return lambda: (text for text in read() if document_hash(text) not in held_out)


def _cut(text: str) -> int:
    """Where the last twentieth begins: at most another twentieth earlier, after a paragraph, line or word."""
    latest = len(text) - len(text) // _SHARE
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, latest - len(text) // _SHARE, latest)
        if at > 0:
            return at + len(mark)
    return latest
