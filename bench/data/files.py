"""Documents from people's own files: .txt, .jsonl, .jsonl.zst and .parquet.

A .txt file is one document; the others hold one a row, under `data.text_key`. Lines of JSON are parsed
here and not by `datasets`, whose reader infers column types and so rewrites text that looks like a date;
it also takes eight times as long and cannot say which line is at fault.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".jsonl.zst", ".parquet")


def find_files(patterns: list[str], key: str) -> list[Path]:
    """The files that paths and globs stand for: patterns in their order, matches of a glob sorted.

    `key` is the configuration key to name in a message. Raises UserError for a file that is missing,
    empty, or of another kind, and for a glob that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern:
            raise UserError(f"{key} holds an empty name. Name files, for example corpus/*.txt.")
        expanded = str(Path(pattern).expanduser())
        is_glob = glob.has_magic(expanded) and not Path(expanded).exists()
        matches = sorted(glob.glob(expanded, recursive=True)) if is_glob else [expanded]
        if not matches:
            raise UserError(f"{key}: no file matches {pattern!r} (looked from {Path.cwd()}).")
        for path in map(Path, matches):
            _check(path, key)
            found[path] = None
    return list(found)


def _check(path: Path, key: str) -> None:
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder. Name the files in it, for example {path}/*.txt.")
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{key}: {path} is none of the kinds that can be read: {', '.join(SUFFIXES)}.")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}.") from error
    if size == 0:
        raise UserError(f"{key}: {path} is empty (0 bytes). Leave it out or put text into it.")


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises UserError where it cannot be read."""
    try:
        found = path.stat()
        return _hash(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, changed: int) -> str:
    """A study asks for every run whether its text is still the same; a file is read again only where it was written."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_documents(path: Path, text_key: str) -> Iterator[str]:
    """The documents of one file, in order; those without a visible character are left out.

    Raises UserError naming the file, and the line or row, where it holds something other than text, or
    nothing at all.
    """
    if path.suffix == ".txt":
        texts = iter([_decode(path.read_bytes(), str(path)).removeprefix("\ufeff")])
    elif path.suffix == ".parquet":
        texts = _read_parquet(path, text_key)
    else:
        texts = _read_json_lines(path, text_key)
    is_empty = True
    for text in texts:
        if text.strip():
            is_empty = False
            yield text
    if is_empty:
        raise UserError(f"{path} holds no text. Leave it out or put text into it.")


def _read_json_lines(path: Path, text_key: str) -> Iterator[str]:
    import zstandard

    with open(path, "rb") as file:
        lines: Iterable[bytes] = _decompressed_lines(file, path) if path.suffix == ".zst" else file
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    place = f"{path}, line {number}"
                    try:
                        row = json.loads(_decode(line, place))
                    except (ValueError, RecursionError) as error:
                        raise UserError(
                            f"{place}: not whole JSON ({error}). Give one object a line; "
                            "fetch the file again if it was cut short."
                        ) from error
                    yield _text_of(row, text_key, place)
        except zstandard.ZstdError as error:
            raise UserError(f"{path} is not a whole zstd file ({error}). Compress it again.") from error


def _decompressed_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Lines of a zstd file of one or more frames; a frame that does not end is a UserError, not an end."""
    import zstandard

    context = zstandard.ZstdDecompressor()
    frame, inside, line = context.decompressobj(), False, b""
    while chunk := file.read(1 << 20):
        while chunk:
            inside = True
            line += frame.decompress(chunk)
            chunk = b""
            if frame.eof:
                chunk, frame, inside = frame.unused_data, context.decompressobj(), False
        *lines, line = line.split(b"\n")
        yield from lines
    if inside:
        raise UserError(f"{path} was cut short: its last zstd frame does not end. Fetch or compress it again.")
    yield line


def _read_parquet(path: Path, text_key: str) -> Iterator[str]:
    from datasets import load_dataset, logging
    from pyarrow.parquet import read_metadata

    logging.set_verbosity(logging.CRITICAL)  # errors are raised as well as logged
    try:
        if read_metadata(path).num_rows == 0:
            return
        rows = load_dataset("parquet", data_files=glob.escape(str(path)), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield _text_of(row, text_key, f"{path}, row {number}")
    except (OSError, ValueError) as error:  # pyarrow's and datasets' errors are among these
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as parquet ({reason}). Write the file again.") from error


def _decode(data: bytes, place: str) -> str:
    if b"\0" in data:
        raise UserError(f"{place}: binary data (a NUL byte at offset {data.index(0)}). Give UTF-8 text.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise UserError(f"{place}: not UTF-8 ({found}). Convert the file to UTF-8, for example with iconv.") from error


def _text_of(row: Any, text_key: str, place: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f'{place}: not a JSON object. Give one object a line, like {{"{text_key}": "..."}}.')
    text = row.get(text_key)
    if not isinstance(text, str):
        found = f"{text_key!r} is {type(text).__name__}" if text_key in row else f"found {', '.join(map(repr, row))}"
        raise UserError(f"{place}: no text under data.text_key={text_key!r} ({found}). Set data.text_key to fit.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: half a surrogate pair at character {error.start}. Give valid Unicode.") from error
    return text
