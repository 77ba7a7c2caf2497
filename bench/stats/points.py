"""Points from a CSV file or a frame: checked row by row, completed, grouped by budget; every exclusion is named."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError

_SAME_BUDGET = 0.01  # a share: runs end within a step of their budget; closer values belong to one budget
_MOST = 1e60  # larger numbers are mistakes, and would overflow when squared
_UNIFORM_LOSS = 12.6  # ln(300,000): no common vocabulary is larger, so no trained model has a higher loss
_TOKENS_PER_PARAM = (1e-3, 1e6)  # about 20 is optimal; outside, a derived column has another unit
_FROM_BUDGET = 2.0  # times that flops may be off their budget, unsaid
_LINE = "line of the file"
_NAMED = 12  # rows that a note names
_NUMBERS = ("flops", "loss", "params", "tokens", "budget")
_LEAST = {"flops": 1.0, "loss": 1e-6, "params": 1e3, "tokens": 1.0, "budget": 1.0}


@dataclass(frozen=True)
class Points:
    """`frame`: method, flops, loss, params, tokens, budget (as given, or its group's mean FLOPs). `notes`: exclusions."""

    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(self.frame["method"]))

    def of(self, method: str) -> pd.DataFrame:
        """The points of one method."""
        return self.frame[self.frame["method"] == method]


def read_points(path: Path, cluster: float | None = None) -> Points:
    """Read a comma-separated file, UTF-8 or UTF-16; columns and `cluster` as in `check_points`.

    Raises UserError if the file, a column or every row cannot be used.
    """
    return check_points(_read(path), str(path), cluster)


def check_points(frame: pd.DataFrame, source: str, cluster: float | None = None) -> Points:
    """The usable rows of `frame`, completed, with a note for every exclusion.

    Needs `method`, `flops`, `loss` (nats/token) and `params` or `tokens`; the other follows from flops = 6 params
    tokens, row by row. Points share a budget if their `budget`, where there is such a column, is the same; otherwise if
    their flops are within 1 %, or the share `cluster`, of the least of them. Raises UserError, naming `source`, if a
    column is missing or no row can be used.
    """
    missing = [name for name in ("method", "flops", "loss") if name not in frame]
    if missing or not {"params", "tokens"} & set(frame):
        needed = ", ".join(missing) or "params or tokens"
        present = ", ".join(str(name) for name in frame if name != _LINE)
        raise UserError(
            f"{source} has no column {needed}; it needs method, flops, loss and one of params, tokens, and has "
            f"{present}."
        )
    if frame.empty:
        raise UserError(f"{source} holds column names and no row.")
    if "budget" in frame and cluster is not None:
        raise UserError(f"{source} has a column budget, which --cluster would override: leave one of them out.")
    frame = frame.copy()
    frame["method"] = frame["method"].astype("string").str.split().str.join(" ")  # on one line
    why = _faults(frame)
    bad = why != ""
    excluded = "; ".join(f"{reason} ({_lines(frame, why == reason)})" for reason in why[bad].unique())
    if 2 * (why.str.contains("perplexity")).sum() > len(frame):
        raise UserError(f"{source}: {excluded}.")
    notes = [f"{bad.sum()} of {len(frame)} rows are excluded: {excluded}."] if bad.any() else []
    given = "budget" in frame
    for name in _NUMBERS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce") if name in frame else np.nan
    repeated = frame.drop(columns=_LINE, errors="ignore").duplicated() & ~bad
    if repeated.any():  # counted twice, a run would look like two that agree, and intervals would narrow
        notes.append(
            f"{repeated.sum()} rows repeat an earlier one in every column and are counted once: "
            f"{_lines(frame, repeated)}. If these are different runs, add a column such as the seed."
        )
    frame = frame[~bad & ~repeated].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{source} holds no point that can be used: {excluded}.")
    for name, other in (("tokens", "params"), ("params", "tokens")):
        derived = _derive(frame, name, other)
        each = float((frame["tokens"] / frame["params"]).median())
        if derived and not _TOKENS_PER_PARAM[0] < each < _TOKENS_PER_PARAM[1]:
            raise UserError(
                f"{source}: {other} near {frame[other].median():.3g} leave {each:.2g} tokens per parameter; "
                f"write single {other}, not thousands, millions or billions, and check flops."
            )
        notes.append(derived)
    ratio = float((frame["flops"] / (6 * frame["params"] * frame["tokens"])).median())
    if not 0.1 < ratio < 10:
        notes.append(f"flops are {ratio:.3g} times 6 x params x tokens: is a column in another unit?")
    frame["method"] = frame["method"].astype(str)
    flops = frame["flops"].to_numpy(dtype=float)
    if given:
        off = float(np.exp(np.abs(np.log(flops / frame["budget"].to_numpy(dtype=float))).max()))
        if off > _FROM_BUDGET:
            notes.append(f"flops are up to {off:.3g} times off their budget: is a column in another unit?")
    else:
        frame["budget"] = _budgets(flops, cluster or _SAME_BUDGET)
    return Points(frame, [note for note in notes if note])


def _read(path: Path) -> pd.DataFrame:
    """The file as text, with the number of the line that each row begins on; blank lines are skipped.

    A method may be called NA or None, and may have a line break in its name.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    text = _decoded(path)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        begun = 1
        for row in reader:
            if any(value.strip() for value in row):
                rows.append(row)
                lines.append(begun)
            begun = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"cannot read {path}: line {reader.line_num}: {str(error).splitlines()[0]}.") from error
    if not rows:
        raise UserError(f"cannot read {path}: it is empty.")
    _check_separator(path, text)
    names = _names(rows[0], path)
    for row, line in zip(rows, lines, strict=True):
        if len(row) > len(names) and any(row[len(names) :]):
            raise UserError(f"cannot read {path}: line {line} has {len(row)} values for {len(names)} columns.")
    whole = [(row + [""] * len(names))[: len(names)] for row in rows[1:]]
    frame = pd.DataFrame(whole, columns=names, dtype=str)
    frame[_LINE] = lines[1:]
    return frame


def _decoded(path: Path) -> str:
    """The file's text, UTF-8 with or without a byte order mark, or UTF-16 with one."""
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"cannot read {path}: line {line} holds the byte {content[error.start]:#04x}, which is not "
            f"{error.encoding.upper()}. Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


def _check_separator(path: Path, text: str) -> None:
    """Raises UserError for columns separated by semicolons or tabs, where decimals may be commas, too."""
    number, header = next((n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip())
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if separator in header and "," not in header:
            raise UserError(
                f"cannot read {path}: line {number} ({header[:60]!r}) is separated by {word}. Columns must be "
                f"separated by commas and decimals written with a point. To convert: "
                f"pandas.read_csv({path.name!r}, sep={separator!r}, decimal=',').to_csv('points.csv', index=False)."
            )


def _names(header: list[str], path: Path) -> list[str]:
    """Column names; `Loss` and ` FLOPs` match if no other column has that name."""
    names = [name.strip() for name in header]
    known = [name.lower() if name.lower() in ("method", *_NUMBERS) else name for name in names]
    twice = sorted({name for name in known if name in ("method", *_NUMBERS) and known.count(name) > 1})
    if twice:
        given = ", ".join(name for name, own in zip(names, known, strict=True) if own == twice[0])
        raise UserError(f"{path} has more than one column for {twice[0]}: {given}. Rename all but one.")
    return known


def _faults(frame: pd.DataFrame) -> pd.Series:
    """Why each row cannot be used; empty if it can."""
    why = pd.Series("", index=frame.index)

    def mark(where: pd.Series, reason: str) -> None:
        why[where & (why == "")] = reason

    empty = {name: _is_empty(frame[name]) if name in frame else pd.Series(True, frame.index) for name in _NUMBERS}
    mark(frame["method"].isna() | (frame["method"] == ""), "no method")
    mark(empty["flops"], "no flops")
    mark(empty["loss"], "no loss")
    if "budget" in frame:
        mark(empty["budget"], "no budget")
    mark(empty["params"] & empty["tokens"], "neither params nor tokens")
    for name in (name for name in _NUMBERS if name in frame):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        unreadable = ~empty[name] & ~np.isfinite(numbers)
        if unreadable.any():
            first = str(frame[name][unreadable].iloc[0]).strip()
            mark(unreadable, f"{name} is not a number such as 8.069e6, but {first!r}{_remedy(first)}")
        mark(numbers <= 0, f"{name} is not above 0")
        least = _LEAST[name]
        unit = "" if name == "loss" else f"; write single {name}, not thousands, millions or billions"
        if (numbers < least).any():
            mark(numbers < least, f"{name} is below {least:g} ({numbers[numbers < least].iloc[0]:g}){unit}")
        mark(numbers > _MOST, f"{name} is above {_MOST:g}")
    mark(
        pd.to_numeric(frame["loss"], errors="coerce") > _UNIFORM_LOSS,
        f"loss is above {_UNIFORM_LOSS:g} nats/token, that of guessing among 300,000 tokens; if the column holds a "
        "perplexity, write its natural logarithm",
    )
    return why


def _remedy(value: str) -> str:
    """How to write a number that cannot be read."""
    if re.fullmatch(r"[\d.,\s]*\d\s*[kKMBGTE]", value):
        return "; write it without a unit"
    return "; write decimals with a point and no separators" if re.fullmatch(r"[\d.]*,[\d.,]*(e.*)?", value) else ""


def _is_empty(column: pd.Series) -> pd.Series:
    return column.isna() | (column.astype("string").str.strip() == "").fillna(True).astype(bool)


def _derive(frame: pd.DataFrame, name: str, other: str) -> str:
    """Fill in the missing values of a column from flops = 6 params tokens; the note is empty if none is missing."""
    missing = frame[name].isna()
    if not missing.any():
        return ""
    frame[name] = frame[name].fillna(frame["flops"] / (6 * frame[other]))
    where = "" if missing.all() else f" in {missing.sum()} of {len(frame)} rows"
    return f"{name} are derived{where}: flops / (6 {other})."


def _lines(frame: pd.DataFrame, chosen: pd.Series) -> str:
    """The places of the chosen rows: lines of the file; rows of a frame are numbered as if below a header line."""
    places = np.flatnonzero(chosen)
    lines = frame[_LINE].iloc[places] if _LINE in frame else places + 2
    return f"line {', '.join(str(line) for line in lines[:_NAMED])}{' and more' if len(places) > _NAMED else ''}"


def _budgets(flops: np.ndarray, share: float) -> np.ndarray:
    """For each point the mean FLOPs of its group: all within that share of the group's smallest."""
    order = np.argsort(flops)
    first, number = 0.0, -1
    group = np.empty(len(flops), dtype=int)
    for place in order:
        if flops[place] > first * (1 + share):
            first, number = flops[place], number + 1
        group[place] = number
    return (np.bincount(group, flops) / np.bincount(group))[group]
