"""Where documents come from: the King James text, people's own files, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bench.config.schema import DataConfig
from bench.data import kjv
from bench.data.files import content_hash, find_files, read_documents
from bench.data.hub import download
from bench.data.split import Reader, Split, document_hash, hold_out, split_by_source
from bench.errors import UserError


@dataclass(frozen=True)
class Source:
    identity: dict[str, Any]  # plain values; equal for equal splits
    split: Callable[[], Split]


def open_source(config: DataConfig) -> Source:
    """The documents that a configuration names. Raises UserError for values and files that do not do."""
    if config.max_documents is not None and config.max_documents < 1:
        raise UserError(f"data.max_documents={config.max_documents} leaves nothing to read. Use 1 or more, or null.")
    if config.validation_documents < 1:
        raise UserError(f"data.validation_documents={config.validation_documents} leaves nothing to validate on.")
    if config.source == "kjv":
        return _kjv(config)
    if config.source == "text":
        if not config.train:
            raise UserError("data.train is empty. Name your text files, for example 'data.train=[texts/*.txt]'.")
        training = find_files(config.train, "data.train")
        return _files(config, training, find_files(config.validation, "data.validation"), config.text_key)
    if config.source == "hub":
        train_file, validation_file = download(config)
        return _files(config, [train_file], [validation_file], "text")
    raise UserError(f"data.source={config.source!r} is not known. Choose one of kjv, text, hub.")


def _kjv(config: DataConfig) -> Source:
    def documents(held_out: bool) -> list[str]:
        return [text for (book, _), text in kjv.chapters().items() if (book in kjv.HELD_OUT) == held_out]

    def validation() -> Iterator[str]:
        return iter(sorted(documents(held_out=True), key=document_hash))  # any prefix is a mixture of books

    def train() -> Iterator[str]:
        return islice(documents(held_out=False), config.max_documents)

    identity = {"kjv": content_hash(kjv.database()), "held_out": kjv.HELD_OUT, "max_documents": config.max_documents}
    return Source(identity, lambda: split_by_source(train, validation))


def _files(config: DataConfig, training: list[Path], validation: list[Path], text_key: str) -> Source:
    def reader(paths: list[Path], limit: int | None) -> Reader:
        return lambda: islice(chain.from_iterable(read_documents(path, text_key) for path in paths), limit)

    def split() -> Split:
        train = reader(training, config.max_documents)
        if validation:
            return split_by_source(train, reader(validation, None))
        return hold_out(train, config.validation_documents)

    identity = {
        "train": [(path.suffixes[-1], content_hash(path)) for path in training],
        "validation": [(path.suffixes[-1], content_hash(path)) for path in validation],
        "text_key": text_key,
        "max_documents": config.max_documents,
        "validation_documents": None if validation else config.validation_documents,
    }
    return Source(identity, split)
