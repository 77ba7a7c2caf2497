"""Packs the runs of a study into a few files and unpacks them again, byte for byte.

Weights and other files in a run's folder are never packed and never deleted. At every moment each run is complete
in one of its forms: a reader takes the loose form where `record.json` is there (`bench.records.packed`), so that file
is the first to go when packing and the last to come when unpacking. The same command continues whatever was
interrupted.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bench.errors import UserError
from bench.records.files import write_atomically
from bench.records.packed import PACKS, RECORD, encoded, texts_of

Runs = dict[str, dict[str, str]]  # run -> name of a file -> its content


def pack(study: Path) -> str:
    """Pack the loose runs in the folder `study`; returns what was done, in words.

    Raises UserError, with nothing changed, if there is no run, a run is already packed with other content, or a file is
    a link or no text.
    """
    _check_folder(study)
    packed, loose = _packed_runs(study), _loose_runs(study)
    if not packed and not loose:
        raise UserError(f"{study} holds no run. Give the folder of a study or comparison, such as results/default.")
    for run, files in loose.items():
        _check_same(study, run, files, packed.get(run, files))
    whole = packed | loose
    if loose:
        for name, pack_name in PACKS.items():
            texts = {run: files[name] for run, files in whole.items() if name in files}
            if texts and texts != texts_of(study / pack_name):
                write_atomically(study / pack_name, encoded(texts))
        if _packed_runs(study) != whole:
            raise UserError(f"the packed files of {study} do not read back correctly; no run was deleted.")
    _delete_loose(study, whole)
    size = sum((study / name).stat().st_size for name in PACKS.values() if (study / name).exists())
    return f"{study}: {len(whole)} runs in {_count(study)} packed files, {size / 1e6:.2f} MB."


def unpack(study: Path) -> str:
    """Write the packed runs of the folder `study` as folders again and delete the packs; returns what was done.

    Raises UserError, with nothing changed, if an existing file differs from the packed one.
    """
    _check_folder(study)
    packed = _packed_runs(study)
    if not packed:
        raise UserError(f"{study} holds no packed runs. Give the folder of a packed study, such as results/default.")
    for run, files in packed.items():
        _check_same(study, run, _files_of(study / run), files)
    for run, files in packed.items():
        try:
            (study / run).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {study / run}: {error.strerror}.") from error
        there = _files_of(study / run)
        for name in sorted(files, key=lambda name: name == RECORD):
            if name not in there:
                write_atomically(study / run / name, files[name])
    for pack_name in PACKS.values():
        (study / pack_name).unlink(missing_ok=True)
    return f"{study}: {len(packed)} runs unpacked."


def is_packed(study: Path) -> bool:
    """Whether the folder `study` holds packs."""
    return _count(study) > 0


def _count(study: Path) -> int:
    return sum((study / name).is_file() for name in PACKS.values())


def _check_folder(study: Path) -> None:
    if not study.is_dir():
        raise UserError(f"{study} is not a folder. Give the folder of a study or comparison, such as results/default.")


def _packed_runs(study: Path) -> Runs:
    found: Runs = {}
    for name, pack_name in PACKS.items():
        for run, text in texts_of(study / pack_name).items():
            found.setdefault(run, {})[name] = text
    return found


def _loose_runs(study: Path) -> Runs:
    """Of the runs that have ended: only they have a record."""
    return {path.parent.name: _files_of(path.parent) for path in sorted(study.glob(f"*/{RECORD}"))}


def _files_of(run: Path) -> dict[str, str]:
    """The files of a loose run that packing includes, as far as they exist."""
    found = {}
    for path in (run / name for name in PACKS):
        if run.is_symlink() or path.is_symlink():
            raise UserError(f"{path} is a link or inside one. Replace it with the file itself.")
        try:
            found[path.name] = path.read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text. Delete {run} and run it again.") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}.") from error
    return found


def _check_same(study: Path, run: str, loose: dict[str, str], packed: dict[str, str]) -> None:
    """Raise UserError if files differ. Without a record, `loose` is what an interrupted unpacking has written."""
    for name in PACKS if RECORD in loose else loose:
        if loose.get(name) != packed.get(name):
            raise UserError(
                f"{study / run / name} differs from the one in {study / PACKS[name]}. To keep the packed one, delete "
                f"{study / run}; to keep the loose one, move {study / run} away, unpack, and move it back."
            )


def _delete_loose(study: Path, packed: Runs) -> None:
    """Delete the loose files that are packed; differing files without a record belong to an unfinished run."""
    for run, files in packed.items():
        loose = _files_of(study / run)
        for name in loose if loose.items() <= files.items() else ():
            (study / run / name).unlink(missing_ok=True)  # the record first, as in PACKS
        with suppress(OSError):  # weights or an unfinished run are still there
            (study / run).rmdir()
