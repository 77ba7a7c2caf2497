"""Reads the files of runs, loose or packed, in the same way.

A run writes a folder of its own with `record.json`, `steps.csv`, `documents.csv` and `routing.json`. A committed study
is packed: next to its own file are `records.jsonl.zst`, `steps.jsonl.zst`, `documents.jsonl.zst` and
`routing.jsonl.zst`, a line {"run": name of the run's folder, "text": content of the file} for each run, compressed with
zstandard. `python -m bench.report --pack STUDY` and `--unpack STUDY` convert one into the other, byte for byte.

A path names a run's file in either form: `read_bytes(study / run / "record.json")`. A run whose folder holds a
`record.json` is loose, and what is packed under its name is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import zstandard

from bench.errors import UserError

RECORD = "record.json"
PACKS = {  # a run's file -> the study's file that holds those of all runs
    RECORD: "records.jsonl.zst",
    "steps.csv": "steps.jsonl.zst",
    "documents.csv": "documents.jsonl.zst",
    "routing.json": "routing.jsonl.zst",
}
_LARGEST = 1 << 30  # bytes of a pack, decompressed: a file of a few bytes may claim any size
_LEVEL = 19


def read_bytes(path: Path) -> bytes:
    """The content of a run's file, loose or packed, or of any other file.

    Raises OSError if there is no such file, UserError if the pack that should hold it is damaged.
    """
    if path.name in PACKS.values():
        texts_of(path)  # a pack instead of a record: say what is wrong with it
    text = _packed(path)
    return path.read_bytes() if text is None else text.encode()


def is_file(path: Path) -> bool:
    """Whether there is such a file of a run, loose or packed. Raises UserError if its pack is damaged."""
    return _packed(path) is not None or path.is_file()


def find_records(folder: Path) -> list[Path]:
    """Every `record.json` at any depth below `folder`, loose or packed, in a stable order.

    A damaged pack of records is listed itself, so that loading it says what is wrong.
    """
    found = set(folder.glob(f"**/{RECORD}"))
    for pack in folder.glob(f"**/{PACKS[RECORD]}"):
        try:
            found |= {pack.parent / run / RECORD for run in texts_of(pack)}
        except UserError:
            found.add(pack)
    return sorted(found)


def study_of(path: Path) -> Path:
    """The folder of the study or comparison that a path of `find_records` belongs to."""
    return path.parent if path.name in PACKS.values() else path.parent.parent


def run_name(name: str) -> str:
    """`name`, where it is that of a run's folder; no other path is followed. Raises ValueError."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a run's folder")
    return name


def texts_of(pack: Path) -> Mapping[str, str]:
    """Run -> content of its file; empty if there is no such pack. Raises UserError if it is damaged."""
    try:
        state = pack.stat()
        return _decoded(pack, state.st_mtime_ns, state.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"cannot read {pack}: {error.strerror}.") from error


def encoded(texts: Mapping[str, str]) -> bytes:
    """A pack's bytes, the same for the same content; inverse of `texts_of`."""
    lines = (json.dumps({"run": run, "text": texts[run]}, ensure_ascii=False) + "\n" for run in sorted(texts))
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress("".join(lines).encode())


def _packed(path: Path) -> str | None:
    """What is packed under the name of a run's file; None if that file is loose, or neither."""
    if path.name not in PACKS or (path.parent / RECORD).exists():
        return None
    return texts_of(path.parent.parent / PACKS[path.name]).get(path.parent.name)


@lru_cache(maxsize=16)
def _decoded(pack: Path, _changed: int, _size: int) -> Mapping[str, str]:
    """The pack as it was at a time and size, which are parts of the cache's key."""
    content = pack.read_bytes()
    texts: dict[str, str] = {}
    try:
        if zstandard.frame_content_size(content) > _LARGEST:
            raise ValueError(f"it claims more than {_LARGEST >> 30} GiB")
        for line in zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False).splitlines():
            entry = json.loads(line)
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("run", "text")):
                raise ValueError("a line is not of the form {run, text}")
            run = run_name(entry["run"])
            if run in texts:
                raise ValueError(f"{run} is in it twice")
            texts[run] = entry["text"]
    except (ValueError, RecursionError, zstandard.ZstdError) as error:
        raise UserError(f"{pack} is not a valid packed file ({error}). Restore it from version control.") from error
    return texts
