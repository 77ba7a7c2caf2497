"""Documents from the user's own files: text, JSON, CSV and parquet, compressed or not, and folders of them.

A .txt file is one document; the other kinds hold one per row, under `data.text_key`. Rows are parsed here and
not by `datasets` 5.2: its JSON reader turns text that looks like a date into a datetime, and a missing key
into a null; its CSV reader turns numbers and "NA" into other values; none of them names the line at fault;
and it reads a truncated .zst file without an error. 60 MB of JSON lines take 0.5 s and 35 MB here,
4.8 s and 420 MB there; of parquet 0.5 s and 140 MB here, 5.0 s and 540 MB there (CPU time, imports included).
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import UserError

_ROW_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_COMPRESSIONS = {"": "", ".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_SUFFIXES = (*(kind + end for kind in (".txt", *_ROW_KINDS) for end in _COMPRESSIONS), ".parquet")
_SHOWN = 24  # characters of a column's name in a message, and columns
_READABLE = f".txt, {', '.join(_ROW_KINDS)} (also with {', '.join(filter(None, _COMPRESSIONS))}) and .parquet"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CARRIAGE_RETURNS = r"lines end in carriage returns alone. Convert the file, for example with tr '\r' '\n'."
_WHOLE_JSON = re.compile(rb"\s*(\[|\{\s*\n)")


def find_files(patterns: list[str], key: str) -> list[Path]:
    """The files that paths, folders and globs stand for: patterns in their order, matches of each sorted.

    A folder means all readable files at any depth below it, except hidden ones. `key` is the configuration key to
    name in a message. Raises UserError for a file that is missing, empty, or of another kind, and for a glob or folder
    without files.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern:
            raise UserError(f"{key} holds an empty name. Name files, for example corpus/*.txt.")
        expanded = str(Path(pattern).expanduser())
        is_glob = glob.has_magic(expanded) and not os.path.exists(expanded)  # no error for a name that cannot be
        matches = sorted(glob.glob(expanded, recursive=True)) if is_glob else [expanded]
        if not matches:
            raise UserError(f"{key}: no file matches {pattern!r} (searched from {Path.cwd()}).")
        for match in map(Path, matches):
            for path in _below(match, key) if os.path.isdir(match) else [match]:
                _check(path, key)
                found[path] = None
    return list(found)


def _below(folder: Path, key: str) -> list[Path]:
    def is_visible(path: Path) -> bool:
        return not any(part.startswith(".") for part in path.relative_to(folder).parts)

    files = sorted(path for path in folder.rglob("*") if _suffix(path) and is_visible(path) and path.is_file())
    if not files:
        raise UserError(f"{key}: the folder {folder} holds no file of a kind that can be read: {_READABLE}.")
    return files


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)


def _check(path: Path, key: str) -> None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        link = f": it is a link to {path.readlink()}" if path.is_symlink() else ""
        raise UserError(f"{key}: {path} does not exist{link} (searched from {Path.cwd()}).") from error
    except (OSError, ValueError) as error:  # a loop of links, a name that no file can have
        raise UserError(f"{key}: cannot read {str(path)!r:.80}: {getattr(error, 'strerror', error)}.") from error
    if _suffix(path) is None:
        raise UserError(f"{key}: {path} is none of the kinds that can be read: {_READABLE}.")
    if not path.is_file():
        raise UserError(f"{key}: {path} is no regular file. Copy what it yields into one.")
    if found.st_size == 0:
        raise UserError(f"{key}: {path} is empty (0 bytes). Leave it out or put text into it.")


def file_identity(path: Path) -> tuple[str, str]:
    """What decides a file's documents: its kind and the SHA-256 of its bytes. Raises UserError like `content_hash`."""
    suffix = _suffix(path) or path.suffix
    kind = ".zst" if suffix == ".jsonl.zst" else suffix  # as records of the first version have it
    return kind, content_hash(path)


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises UserError if it cannot be read."""
    try:
        found = path.stat()
        return _hash(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, changed: int) -> str:
    """A study checks before every run that its text is the same; only a changed file is read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_documents(path: Path, text_key: str, nulls: dict[Path, int] | None = None) -> Iterator[str]:
    """The documents of one file, in order, without those that have no visible character.

    Rows whose text is null are skipped; their number so far is kept in `nulls[path]`. Raises UserError, naming the file
    and the line or row, if it is empty or holds anything but text.
    """
    skipped, is_empty = 0, True
    for text in _read_parquet(path, text_key) if path.suffix.lower() == ".parquet" else _read_text(path, text_key):
        if text is None:
            skipped += 1
            if nulls is not None:
                nulls[path] = skipped
        elif text.strip():
            is_empty = False
            yield text
    if is_empty:
        raise UserError(f"{path} holds no text. Leave it out or put text into it.")


def _read_text(path: Path, text_key: str) -> Iterator[str | None]:
    """The texts of a file that is text itself, compressed or not; None for a null."""
    suffix = _suffix(path) or ""
    ending = next(end for end in reversed(_COMPRESSIONS) if suffix.endswith(end))
    try:
        with _open(path, ending) as file:
            if file.peek(3).startswith(_BYTE_ORDER_MARK):
                file.read(3)
            if suffix.startswith(".txt"):
                yield _decode(file.read(), str(path))
                return
            rows = _csv_rows if suffix.startswith((".csv", ".tsv")) else _json_rows
            for place, row in rows(file, path, suffix):
                yield _text_of(row, text_key, place)
    except EOFError as error:
        raise UserError(f"{path} is truncated. Download or compress it again.") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        if not ending:
            raise UserError(f"cannot read {path}: {error}.") from error
        raise UserError(f"{path} is not a valid {_COMPRESSIONS[ending]} file ({error}). Compress it again.") from error


def _open(path: Path, ending: str) -> io.BufferedReader:
    opened: Any = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _ZstdFile}[ending]
    return io.BufferedReader(opened(path, "rb"), 1 << 20)


class _ZstdFile(io.RawIOBase):
    """A zstd file of one or more frames, decompressed.

    Raises EOFError if the last frame does not end, and OSError for data that are not zstd.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self._file = open(path, mode)  # noqa: SIM115
        self._frame: Any = None  # the frame that is being read
        self._compressed = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        while not self._ready:
            self._compressed = self._compressed or self._file.read(1 << 20)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                self._ready = self._frame.decompress(self._compressed)
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            self._compressed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _json_rows(file: io.BufferedReader, path: Path, suffix: str) -> Iterator[tuple[str, Any]]:
    """Place and value of each line; a .json file may be one list, or one object of several lines, instead."""
    if suffix.startswith(".json") and not suffix.startswith(".jsonl") and _WHOLE_JSON.match(file.peek(1)):
        whole = _parse_json(file.read(), str(path))
        for number, row in enumerate(whole if isinstance(whole, list) else [whole], 1):
            yield f"{path}, row {number}", row
        return
    for number, line in enumerate(file, 1):
        if line.strip():
            place = f"{path}, line {number}"
            if b"\r" in line.rstrip():
                raise UserError(f"{place}: {_CARRIAGE_RETURNS}")
            yield place, _parse_json(line, place)


def _parse_json(data: bytes, place: str) -> Any:
    try:
        return json.loads(_decode(data, place))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place}: invalid JSON ({error}). Give one object per line; download the file again if it is truncated."
        ) from error


def _csv_rows(file: io.BufferedReader, path: Path, suffix: str) -> Iterator[tuple[str, Any]]:
    """Place and row of a table whose first line names the columns; a missing cell is None."""
    csv.field_size_limit(sys.maxsize >> 32)  # a document is longer than csv allows for a cell
    separator = "\t" if suffix.startswith(".tsv") else ","
    lines = (_decode(line, f"{path}, line {number}") for number, line in enumerate(file, 1))
    rows = csv.DictReader(lines, delimiter=separator, strict=True)
    try:
        names = rows.fieldnames or []
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{path}, line 1: several columns are named {twice!r}. Leave one of them.")
        if len(names) == 1 and ";" in names[0]:
            raise UserError(f"{path}, line 1: columns are separated by semicolons. Separate them by {separator!r}.")
        for row in rows:
            place = f"{path}, line {rows.line_num}"
            if None in row:  # cells beyond the header's: a part of the text may be among them
                raise UserError(f"{place}: more cells than the {len(names)} columns. Quote cells that hold commas.")
            yield place, row
    except csv.Error as error:
        place = f"{path}, line {rows.reader.line_num}"
        if "new-line character" in str(error):
            raise UserError(f"{place}: {_CARRIAGE_RETURNS}") from error
        raise UserError(f"{place}: not CSV ({error}). Quote cells that hold commas, quotes or line ends.") from error


def _read_parquet(path: Path, text_key: str) -> Iterator[str | None]:
    """Only the text column is read, so columns of other types and newer metadata do no harm."""
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            columns, number = file.schema_arrow.names, 0
            if text_key not in columns and file.metadata.num_rows:
                _text_of(dict.fromkeys(columns), text_key, f"{path}, row 1")
            for batch in file.iter_batches(1024, columns=[text_key]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield _text_of({text_key: value}, text_key, f"{path}, row {number}")
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as parquet ({reason}). Write the file again.") from error


def _decode(data: bytes, place: str) -> str:
    if b"\0" in data:
        raise UserError(
            f"{place}: binary data (a NUL byte at offset {data.index(0)}). Give UTF-8 text; iconv converts UTF-16."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise UserError(f"{place}: not UTF-8 ({found}). Convert the file to UTF-8, for example with iconv.") from error


def _text_of(row: Any, text_key: str, place: str) -> str | None:
    if not isinstance(row, dict):
        raise UserError(f'{place}: not a JSON object. Give one object per line, like {{"{text_key}": "..."}}.')
    text = row.get(text_key)
    if text is None and text_key in row:
        return None
    if not isinstance(text, str):
        names = ", ".join(f"{name[:_SHOWN]!r}" for name in list(row)[:_SHOWN])
        found = f"{text_key!r} is {type(text).__name__}" if text_key in row else f"found {names}"
        raise UserError(
            f"{place}: no text under data.text_key={text_key!r} ({found}). Set data.text_key to the one of the text."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: half a surrogate pair at character {error.start}. Give valid Unicode.") from error
    return text
