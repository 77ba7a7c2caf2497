"""Where documents come from: the text of the installation, the user's own files, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bench.config.schema import DataConfig
from bench.data.embedded import EMBEDDED_BYTES, identity, passages
from bench.data.files import file_identity, find_files, read_documents
from bench.data.hub import download
from bench.data.split import Reader, Split, split_by_hash, split_by_source
from bench.errors import UserError


@dataclass(frozen=True)
class Source:
    """The documents that a configuration names."""

    identity: dict[str, Any]  # plain values; equal for equal splits
    split: Callable[[], Split]
    n_bytes: int  # of the training text as it is stored
    nulls: dict[Path, int] = field(default_factory=dict)  # rows without text that the last pass skipped, by file


def open_source(config: DataConfig) -> Source:
    """The documents that a configuration names. Raises UserError for values and files that cannot be used."""
    if config.max_documents is not None and config.max_documents < 1:
        raise UserError(f"data.max_documents={config.max_documents} leaves nothing to read. Use 1 or more, or null.")
    if config.validation_documents < 1:
        raise UserError(
            f"data.validation_documents={config.validation_documents} leaves nothing to validate on. Use 1 or more."
        )
    if config.source in ("kjv", "sotu", "kjv_sotu"):
        return _embedded(config)
    if config.source == "text":
        if not config.train:
            raise UserError("data.train is empty. Name your text files, for example 'data.train=[texts/*.txt]'.")
        training = find_files(config.train, "data.train")
        return _files(config, training, find_files(config.validation, "data.validation"), config.text_key)
    if config.source == "hub":
        train_file, validation_file = download(config)
        return _files(config, [train_file], [validation_file], "text")
    raise UserError(f"data.source={config.source!r} is not known. Choose one of kjv, sotu, kjv_sotu, text, hub.")


def _embedded(config: DataConfig) -> Source:
    def split() -> Split:
        found = passages(config.source)
        training = [passage.text for passage in found if not passage.held_out]
        held_out = {passage.text: passage.cluster for passage in found if passage.held_out}
        split = split_by_source(lambda: islice(training, config.max_documents), lambda: iter(held_out))
        return replace(split, clusters=[held_out[text] for text in split.validation])

    return Source({**identity(config.source), "max_documents": config.max_documents}, split, EMBEDDED_BYTES)


def _files(config: DataConfig, training: list[Path], validation: list[Path], text_key: str) -> Source:
    nulls: dict[Path, int] = {}

    def reader(paths: list[Path], limit: int | None) -> Reader:
        return lambda: islice(chain.from_iterable(read_documents(path, text_key, nulls) for path in paths), limit)

    def split() -> Split:
        train = reader(training, config.max_documents)
        if validation:
            return split_by_source(train, reader(validation, None))
        return split_by_hash(train, config.validation_documents)

    chosen: dict[str, Any] = {
        "train": [file_identity(path) for path in training],
        "validation": [file_identity(path) for path in validation],
        "text_key": text_key,
        "max_documents": config.max_documents,
        "validation_documents": None if validation else config.validation_documents,
    }
    if validation:
        chosen["rules"] = 2  # in the order of their hashes, copies once; earlier records have no such key
    return Source(chosen, split, sum(path.stat().st_size for path in training), nulls)
