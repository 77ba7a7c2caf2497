"""From a data configuration to token arrays on disk: `prepare` is the one way in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import numpy as np

from bench.config.identity import digest
from bench.config.schema import DataConfig
from bench.data.cache import cached_folder
from bench.data.hub import download_folder
from bench.data.progress import shown
from bench.data.sources import Source, open_source
from bench.data.split import Copies, Split
from bench.data.tokenizer import SubwordTokenizer, Tokenizer, load_tokenizer, make_tokenizer, tokenizer_identity
from bench.errors import UserError

_FORMAT = 1  # raise it when an equal configuration yields other tokens than before
_COPIES = "copies.json"
_LOSES = "loses.txt"  # only where the tokenizer loses text
_LAYOUT = 3  # raise it when the cached files change but the tokens do not
_SAMPLE = 1 << 20  # training tokens, of which some must differ
_BATCH_CHARACTERS = 1_000_000  # texts tokenised together
_QUICK_BYTES = {"bytes": 50_000_000, "bpe": 4_000_000, "pretrained": 8_000_000}  # of text, tokenised in seconds


@dataclass
class Document:
    """A validation document."""

    text: str
    tokens: np.ndarray  # (n,), without the end-of-text token
    n_bytes: int | None  # of its UTF-8; None: its tokens do not hold all of it
    cluster: str | None = None  # the book or speech that it is a part of; None: it stands alone


@dataclass
class Corpus:
    """Tokenised text. Equal fingerprints mean equal tokens."""

    name: str
    tokenizer: Tokenizer
    train: np.memmap  # (train_tokens,) of tokenizer.dtype: documents, each followed by the end-of-text token
    validation: list[Document]  # in the order of their hashes, so that any prefix is a sample
    fingerprint: str
    copies: Copies  # documents that were left out, because their words are those of a validation document
    loses: str | None = None  # the first text that the tokenizer loses, in words; None: it keeps all

    @property
    def train_tokens(self) -> int:
        return len(self.train)


def prepare(config: DataConfig) -> Corpus:
    """The corpus of a configuration, from `cache_dir`, where it is built if missing.

    The cache is keyed by the content of the text and by the tokenizer, not by paths. Prints a line if it
    had to build. Raises UserError for an unusable value or file, a missing network and a full disk.
    """
    source = open_source(config)
    fingerprint = _fingerprint(config, source)
    folder = _folder(config, fingerprint)
    built = cached_folder(folder, lambda temporary: _build(config, source.split(), temporary))
    corpus = _load(config, folder, fingerprint)
    if built:
        for path, count in source.nulls.items():
            print(f"Rows of {path} skipped because data.text_key={config.text_key!r} is null: {count:,}.")
        for side, count in asdict(corpus.copies).items():
            if count:
                print(f"Documents of {side} left out because they are copies of validation documents: {count:,}.")
        print(
            f"Prepared {config.name}: {corpus.train_tokens:,} training tokens ({corpus.tokenizer.name}), "
            f"{len(corpus.validation):,} validation documents, in {folder}."
        )
    return corpus


@dataclass(frozen=True)
class Extent:
    """How large a corpus is."""

    vocab_size: int
    train_tokens: int


def extent(config: DataConfig) -> Extent | None:
    """The extent of a corpus that is in the cache or is tokenised in seconds; None if it would take longer.

    Leaves nothing on disk. Raises UserError like `prepare`, for missing files always.
    """
    if config.source == "hub" and not download_folder(config).exists():
        return None
    source = open_source(config)
    fingerprint = _fingerprint(config, source)
    if _folder(config, fingerprint).exists():
        corpus = prepare(config)
    elif source.n_bytes > _QUICK_BYTES[config.tokenizer.kind]:
        return None
    else:
        with TemporaryDirectory() as place:
            _build(config, source.split(), Path(place))
            corpus = _load(config, Path(place), fingerprint)
    return Extent(corpus.tokenizer.vocab_size, corpus.train_tokens)


def corpus_fingerprint(config: DataConfig) -> str:
    """The fingerprint of what `prepare` would return now; nothing is tokenised. Raises UserError like `prepare`."""
    return _fingerprint(config, open_source(config))


def _folder(config: DataConfig, fingerprint: str) -> Path:
    return Path(config.cache_dir) / f"{config.name.replace('/', '-')}-{fingerprint}-v{_LAYOUT}"


def _fingerprint(config: DataConfig, source: Source) -> str:
    return digest([_FORMAT, source.identity, tokenizer_identity(config.tokenizer)], 12)


def _build(config: DataConfig, split: Split, folder: Path) -> None:
    tokenizer = make_tokenizer(config.tokenizer, split.train())
    if isinstance(tokenizer, SubwordTokenizer):
        tokenizer.save(folder)
        loses = _lost(tokenizer, split.validation)
        if loses is not None:
            (folder / _LOSES).write_text(loses, encoding="utf-8")
    _write_tokens(folder / "validation.bin", split.validation, tokenizer)
    train_tokens = _write_tokens(folder / "train.bin", shown(split.train(), "tokenising"), tokenizer)
    with open(folder / "validation.jsonl", "w", encoding="utf-8") as file:
        for text, cluster in zip(split.validation, split.clusters or repeat(None), strict=False):
            file.write(json.dumps({"text": text, "cluster": cluster}) + "\n")
    (folder / _COPIES).write_text(json.dumps(asdict(split.copies)), encoding="utf-8")
    if not split.validation:
        raise UserError(f"data={config.name} is too small: no text is left for validation. Give more text.")
    if not train_tokens:
        raise UserError(
            f"data={config.name}: no text is left for train, because all {split.copies.training:,} training documents "
            "are copies of validation documents. Give data.train and data.validation different text."
        )
    sample = set(np.fromfile(folder / "train.bin", tokenizer.dtype, _SAMPLE).tolist()) - {tokenizer.eot}
    if len(sample) == 1:
        raise UserError(
            f"data={config.name}: the training text is {tokenizer.decode(list(sample))!r} again and again, so there is "
            "nothing to learn. Give other text, or choose another data.tokenizer."
        )


def _lost(tokenizer: SubwordTokenizer, texts: list[str]) -> str | None:
    """The first place where decoded text differs from the text, in words; canonically equivalent characters and space
    at the ends do not count.
    """
    for batch in _batches_of_text(texts):
        for text, tokens in zip(batch, tokenizer.encode_batch(batch), strict=True):
            before, after = (normalize("NFC", each).strip() for each in (text, tokenizer.decode(tokens.tolist())))
            if before != after:
                differing = (n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
                at = next(differing, min(len(before), len(after)))
                return f"{before[at : at + 24]!r} is decoded as {after[at : at + 24]!r}"
    return None


def _write_tokens(path: Path, texts: Iterable[str], tokenizer: Tokenizer) -> int:
    """Writes documents, each followed by `eot`, a batch at a time; returns the number of tokens.

    Raises UserError for a document without tokens, or with `eot` inside.
    """
    end = np.array([tokenizer.eot], tokenizer.dtype)
    total = 0
    with open(path, "wb") as file:
        for batch in _batches_of_text(texts):
            for text, tokens in zip(batch, tokenizer.encode_batch(batch), strict=True):
                if not len(tokens) or tokenizer.eot in tokens:
                    fault = "has its end-of-text token inside" if len(tokens) else "becomes empty"
                    raise UserError(
                        f"data.tokenizer.name={tokenizer.name!r} cannot be used: the document that begins with "
                        f"{text[:24]!r} {fault}. Choose another tokenizer, or set data.tokenizer.kind=bpe."
                    )
                file.write(np.concatenate([tokens, end]).tobytes())
                total += len(tokens) + 1
    return total


def _batches_of_text(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _load(config: DataConfig, folder: Path, fingerprint: str) -> Corpus:
    tokenizer = load_tokenizer(config.tokenizer, folder)
    train = np.memmap(folder / "train.bin", tokenizer.dtype, mode="r")
    joined = np.fromfile(folder / "validation.bin", tokenizer.dtype)
    ends = np.flatnonzero(joined == tokenizer.eot)
    with open(folder / "validation.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    loses = (folder / _LOSES).read_text(encoding="utf-8") if (folder / _LOSES).exists() else None
    validation = [
        Document(row["text"], tokens[:-1], None if loses else len(row["text"].encode()), row["cluster"])
        for row, tokens in zip(rows, np.split(joined, ends[:-1] + 1), strict=True)
    ]
    copies = Copies(**json.loads((folder / _COPIES).read_text(encoding="utf-8")))
    return Corpus(config.name, tokenizer, train, validation, fingerprint, copies, loses)
