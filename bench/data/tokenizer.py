"""Text to token ids and back: bytes, a BPE trained on the corpus, or a pretrained one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.schema import TokenizerConfig
from bench.data.files import content_hash
from bench.data.progress import timed
from bench.errors import UserError

KINDS = ("bytes", "bpe", "pretrained")
_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|eot_id|>", "<|im_end|>", "[SEP]")
_BPE_SAMPLE = 50_000_000  # characters; with more, merges hardly change but training takes longer
_LONGEST_WORD = 128  # bytes
_FILE = "tokenizer.json"


class Tokenizer(ABC):
    """The interface of every tokenizer. `eot` is the id that ends a document; no text encodes to it."""

    name: str
    vocab_size: int
    eot: int
    fingerprint: str  # equal for tokenizers that encode alike

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, without `eot`, as `dtype`."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; incomplete characters become U+FFFD."""

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without `eot`."""
        return self.encode_batch([text])[0].tolist()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One readable piece per token; an incomplete character becomes a middle dot."""
        return [self.decode([token]).replace("\ufffd", "\u00b7") for token in ids]


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes as ids. A document ends with 0xFF, which occurs in no UTF-8 text."""

    name = fingerprint = "bytes"
    vocab_size = 256
    eot = 0xFF

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(self.dtype) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return np.asarray(ids).astype(np.uint8).tobytes().decode(errors="replace")


class SubwordTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library. Special tokens are never read out of plain text.

    Raises UserError if no token can end a document, or if text can produce that token.
    """

    def __init__(self, name: str, implementation: Any) -> None:
        implementation.no_truncation()
        implementation.no_padding()
        implementation.encode_special_tokens = True
        vocabulary = implementation.get_vocab(with_added_tokens=True)
        special = [token.content for token in implementation.get_added_tokens_decoder().values() if token.special]
        end = next((token for known in (special, vocabulary) for token in _END_OF_TEXT if token in known), None)
        if end is None:
            raise UserError(
                f"data.tokenizer.name={name!r} has no end-of-text token. Choose a tokenizer that has one of "
                f"{', '.join(_END_OF_TEXT)}, or set data.tokenizer.kind=bpe."
            )
        self.name = name
        self.eot = vocabulary[end]
        self.vocab_size = max(vocabulary.values()) + 1
        self.fingerprint = hashlib.sha256(implementation.to_str().encode()).hexdigest()[:12]
        self._implementation = implementation
        if any(self.eot in ids for ids in self.encode_batch([end, f"a {end} b"])):
            raise UserError(
                f"data.tokenizer.name={name!r} reads the text {end!r} as its end-of-text token, so text could end a "
                "document. Choose another tokenizer, or set data.tokenizer.kind=bpe."
            )

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._implementation.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self._implementation.decode([int(token) for token in ids], skip_special_tokens=False)

    def to_json(self) -> str:
        """The content of its tokenizer.json."""
        return self._implementation.to_str()

    def save(self, folder: Path) -> None:
        """Write the tokenizer.json that `load_tokenizer` reads."""
        (folder / _FILE).write_text(self.to_json(), encoding="utf-8")


def tokenizer_name(config: TokenizerConfig) -> str:
    """Its name for people: bytes, bpe-16384, or the name of the pretrained one."""
    return {"bytes": "bytes", "bpe": f"bpe-{config.vocab_size}", "pretrained": str(config.name)}[config.kind]


def tokenizer_identity(config: TokenizerConfig) -> dict[str, Any]:
    """Everything that, with the training text, determines the tokens. Raises UserError for bad values."""
    if config.kind not in KINDS:
        raise UserError(f"data.tokenizer.kind={config.kind!r} is not known. Choose one of {', '.join(KINDS)}.")
    if config.kind == "bytes":
        return {"kind": "bytes"}
    if config.kind == "bpe":
        if config.vocab_size < 257:
            raise UserError(
                f"data.tokenizer.vocab_size={config.vocab_size} is too small: 256 bytes and the end-of-text token "
                "need 257. Use 512 or more, or data.tokenizer.kind=bytes."
            )
        return {"kind": "bpe", "vocab_size": config.vocab_size, "sample": _BPE_SAMPLE, "word": _LONGEST_WORD}
    if config.name is None:
        raise UserError(
            "data.tokenizer.kind=pretrained needs data.tokenizer.name: a Hugging Face name such as gpt2, "
            "or the path of a tokenizer.json."
        )
    path = Path(config.name).expanduser()
    return {"kind": "pretrained", "tokenizer": content_hash(path) if path.is_file() else config.name}


def vocabulary_size(config: TokenizerConfig) -> int:
    """Size of the vocabulary before any text is read; a BPE on very little text may end up smaller."""
    tokenizer_identity(config)  # refuses what cannot work
    if config.kind == "bpe":
        return config.vocab_size
    return make_tokenizer(config, ()).vocab_size


def make_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of a configuration; a BPE is trained on `texts`."""
    if config.kind == "bytes":
        return ByteTokenizer()
    if config.kind == "bpe":
        return SubwordTokenizer(tokenizer_name(config), _train_bpe(config.vocab_size, iter(texts)))
    return _load_pretrained(str(config.name))


def load_tokenizer(config: TokenizerConfig, folder: Path) -> Tokenizer:
    """The tokenizer that was saved in `folder`. Raises UserError if its file is missing or damaged."""
    if config.kind == "bytes":
        return ByteTokenizer()
    return _read(tokenizer_name(config), folder / _FILE, f"{folder / _FILE}")


def _train_bpe(vocab_size: int, texts: Iterator[str]) -> Any:
    """A byte-level BPE (GPT-2's pre-tokenisation, words of at most `_LONGEST_WORD` bytes), the same for the same texts.

    Training takes time quadratic in the length of a word, so unbroken data would never end.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Implementation

    implementation = Implementation(models.BPE())
    implementation.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Split(Regex(f".{{1,{_LONGEST_WORD}}}"), "isolated"),
        ]
    )
    implementation.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_END_OF_TEXT[0]],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with timed(f"training a BPE of {vocab_size:,} tokens"):
        implementation.train_from_iterator(_sample(texts), trainer)
    return implementation


def _sample(texts: Iterator[str]) -> Iterator[str]:
    characters = 0
    for text in texts:
        yield text
        characters += len(text)
        if characters >= _BPE_SAMPLE:
            return


def _load_pretrained(name: str) -> SubwordTokenizer:
    from bench.data.hub import download_tokenizer

    path = Path(name).expanduser()
    if not path.is_file():
        if path.suffix == ".json":
            raise UserError(f"data.tokenizer.name: there is no file {path}.")
        path = download_tokenizer(name)
    return _read(name, path, f"data.tokenizer.name: {path}")


def _read(name: str, path: Path, what: str) -> SubwordTokenizer:
    from tokenizers import Tokenizer as Implementation

    try:
        implementation = Implementation.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{what} is not a valid tokenizer.json ({error}).") from error
    return SubwordTokenizer(name, implementation)
