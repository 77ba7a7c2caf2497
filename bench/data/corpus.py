"""From a data configuration to token arrays on disk: `prepare` is the one way in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.config import DataConfig, digest
from bench.data import kjv
from bench.data.cache import cached_folder
from bench.data.files import content_hash, find_files, read_documents
from bench.data.hub import download
from bench.data.split import Reader, Split, document_hash, hold_out, split_by_source
from bench.data.tokenizer import SubwordTokenizer, Tokenizer, load_tokenizer, make_tokenizer, tokenizer_identity
from bench.errors import UserError

_FORMAT = 1  # raise it when equal configurations should yield other tokens than before
_BATCH_CHARACTERS = 4_000_000  # texts tokenised together


@dataclass
class Document:
    """A held-out document."""

    text: str
    tokens: np.ndarray  # (n,), without the end-of-text token
    n_bytes: int  # of its UTF-8


@dataclass
class Corpus:
    """Tokenised text. Equal fingerprints mean equal tokens."""

    name: str
    tokenizer: Tokenizer
    train: np.memmap  # (train_tokens,): documents, each followed by the end-of-text token
    validation: list[Document]
    fingerprint: str

    @property
    def train_tokens(self) -> int:
        return len(self.train)


def prepare(config: DataConfig) -> Corpus:
    """The corpus of a configuration, from `cache_dir` or, if it is not there, built into it.

    The cache is keyed by the text's content and the tokenizer, not by paths or names. Prints a line if
    it had to build. Raises UserError for any value, file, network or disk that stands in the way.
    """
    identity, split = _open_source(config)
    fingerprint = digest([_FORMAT, identity, tokenizer_identity(config.tokenizer)], 12)
    folder = Path(config.cache_dir) / fingerprint
    built = cached_folder(folder, lambda temporary: _build(config, split(), temporary))
    corpus = _load(config, folder, fingerprint)
    if built:
        print(
            f"Prepared {config.name}: {corpus.train_tokens:,} training tokens ({corpus.tokenizer.name}) and "
            f"{len(corpus.validation)} validation documents, in {folder}."
        )
    return corpus


def _open_source(config: DataConfig) -> tuple[Any, Any]:
    """What identifies the text, and a function that reads and splits it."""
    if config.source == "kjv":
        return _open_kjv(config)
    if config.source == "text":
        if not config.train:
            raise UserError("data.train is empty. Name your text files, for example data.train=[texts/*.txt].")
        train = find_files(config.train, "data.train")
        return _open_files(config, train, find_files(config.validation, "data.validation"), config.text_key)
    if config.source == "hub":
        training, validation = download(config)
        return _open_files(config, [training], [validation], "text")
    raise UserError(f"data.source={config.source!r} is not known. Choose one of kjv, text, hub.")
