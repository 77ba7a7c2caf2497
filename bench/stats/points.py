"""Points from a CSV file: checked row by row, completed, grouped by budget. Nothing is dropped without a word."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError

_SAME_BUDGET = 0.01  # runs end within a step of their budget; what is closer than this belongs together
_LEAST_LOSS, _MOST = 1e-6, 1e60  # what is beyond is a mistake, and would not survive being squared
_LINE = "line of the file"
_NAMED = 12  # rows that a note names
_NUMBERS = ("flops", "loss", "params", "tokens")


@dataclass(frozen=True)
class Points:
    """`frame`: method, flops, loss, params, tokens, budget (its group's mean FLOPs). `notes`: what was left out."""

    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(self.frame["method"]))

    def of(self, method: str) -> pd.DataFrame:
        """The points of one method."""
        return self.frame[self.frame["method"] == method]


def read_points(path: Path) -> Points:
    """Read `method,flops,loss` and one of `params` or `tokens`; the other follows from flops = 6 params tokens.

    Each row may have the one or the other. Rows that cannot be used are named in `notes`. Raises UserError where the
    file, a column or every row is of no use.
    """
    frame = _read(path)
    missing = [name for name in ("method", "flops", "loss") if name not in frame]
    if missing or not {"params", "tokens"} & set(frame):
        needed = ", ".join(missing) or "params or tokens"
        there = ", ".join(name for name in frame if name != _LINE)
        hint = " Columns are separated by commas." if len(frame.columns) == 2 else ""
        raise UserError(
            f"{path} has no column {needed}; it needs method, flops, loss and one of params, tokens, and has {there}."
            f"{hint}"
        )
    if frame.empty:
        raise UserError(f"{path} holds column names and no row.")
    return check_points(frame, str(path))


def _read(path: Path) -> pd.DataFrame:
    """The file as text, with the number of the line that each row begins on; blank lines are no rows.

    A method may be called NA or None, and may have a line break in its name.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            begun = 1
            for row in reader:
                if any(value.strip() for value in row):
                    rows.append(row)
                    lines.append(begun)
                begun = reader.line_num + 1
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}.") from error
    if not rows:
        raise UserError(f"cannot read {path}: it is empty.")
    names = _names(rows[0], path)
    for row, line in zip(rows, lines, strict=True):
        if len(row) > len(names) and any(row[len(names) :]):
            raise UserError(f"cannot read {path}: line {line} has {len(row)} values for {len(names)} columns.")
    whole = [(row + [""] * len(names))[: len(names)] for row in rows[1:]]
    frame = pd.DataFrame(whole, columns=names, dtype=str)
    frame[_LINE] = lines[1:]
    return frame


def _names(header: list[str], path: Path) -> list[str]:
    """Column names; `Loss` and ` FLOPs` are taken for what is needed where nothing else is called so."""
    names = [name.strip() for name in header]
    known = [name.lower() if name.lower() in ("method", *_NUMBERS) else name for name in names]
    twice = sorted({name for name in known if name in ("method", *_NUMBERS) and known.count(name) > 1})
    if twice:
        given = ", ".join(name for name, own in zip(names, known, strict=True) if own == twice[0])
        raise UserError(f"{path} has more than one column for {twice[0]}: {given}. Rename all but one.")
    return known


def check_points(frame: pd.DataFrame, source: str) -> Points:
    """The usable rows of `frame`, completed, and what was left out and why."""
    frame = frame.copy()
    frame["method"] = frame["method"].astype("string").str.split().str.join(" ")  # on one line
    why = _faults(frame)
    for name in _NUMBERS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce") if name in frame else np.nan
    bad = why != ""
    left_out = "; ".join(f"{reason} ({_lines(frame, why == reason)})" for reason in why[bad].unique())
    notes = [f"{bad.sum()} of {len(frame)} rows are left out: {left_out}."] if bad.any() else []
    repeated = frame.drop(columns=_LINE, errors="ignore").duplicated() & ~bad
    if repeated.any():  # counted twice, a run would look like two that agree, and intervals would narrow
        notes.append(
            f"{repeated.sum()} rows repeat an earlier one in every column and are counted once: "
            f"{_lines(frame, repeated)}. Runs that do differ, in their seed, can say so in a column of their own."
        )
    frame = frame[~bad & ~repeated].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{source} holds no point that can be used: {left_out}.")
    notes += [_derive(frame, "tokens", "params"), _derive(frame, "params", "tokens")]
    ratio = float((frame["flops"] / (6 * frame["params"] * frame["tokens"])).median())
    if not 0.1 < ratio < 10:
        notes.append(f"flops are {ratio:.3g} times 6 x params x tokens: is a column in another unit?")
    frame["method"] = frame["method"].astype(str)
    frame["budget"] = _budgets(frame["flops"].to_numpy(dtype=float))
    return Points(frame, [note for note in notes if note])


def _faults(frame: pd.DataFrame) -> pd.Series:
    """Why each row cannot be used; empty where it can."""
    why = pd.Series("", index=frame.index)

    def tell(where: pd.Series, reason: str) -> None:
        why[where & (why == "")] = reason

    empty = {name: _is_empty(frame[name]) if name in frame else pd.Series(True, frame.index) for name in _NUMBERS}
    tell(frame["method"].isna() | (frame["method"] == ""), "no method")
    tell(empty["flops"], "no flops")
    tell(empty["loss"], "no loss")
    tell(empty["params"] & empty["tokens"], "neither params nor tokens")
    for name in (name for name in _NUMBERS if name in frame):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        tell(~empty[name] & ~np.isfinite(numbers), f"{name} is no number")
        tell(numbers <= 0, f"{name} is not above 0")
        least = _LEAST_LOSS if name == "loss" else 1.0
        unit = "" if name == "loss" else f", and it is counted in single {name}, not in millions or billions"
        tell(numbers < least, f"{name} is below {least:g}{unit}")
        tell(numbers > _MOST, f"{name} is above {_MOST:g}")
    return why


def _is_empty(column: pd.Series) -> pd.Series:
    return column.isna() | (column.astype("string").str.strip() == "").fillna(True).astype(bool)


def _derive(frame: pd.DataFrame, name: str, other: str) -> str:
    """Fill in what is missing of a column from flops = 6 params tokens; in words, empty where nothing is."""
    missing = frame[name].isna()
    if not missing.any():
        return ""
    frame[name] = frame[name].fillna(frame["flops"] / (6 * frame[other]))
    where = "" if missing.all() else f" in {missing.sum()} of {len(frame)} rows"
    return f"{name} are derived{where}: flops / (6 {other})."


def _lines(frame: pd.DataFrame, chosen: pd.Series) -> str:
    """Where the chosen rows are: lines of the file, or, of rows from elsewhere, as if they were one under a header."""
    places = np.flatnonzero(chosen)
    lines = frame[_LINE].iloc[places] if _LINE in frame else places + 2
    return f"line {', '.join(str(line) for line in lines[:_NAMED])}{' and more' if len(places) > _NAMED else ''}"


def _budgets(flops: np.ndarray) -> np.ndarray:
    """For each point the mean FLOPs of its group: all within 1 % of the group's smallest."""
    order = np.argsort(flops)
    first, number = 0.0, -1
    group = np.empty(len(flops), dtype=int)
    for place in order:
        if flops[place] > first * (1 + _SAME_BUDGET):
            first, number = flops[place], number + 1
        group[place] = number
    return (np.bincount(group, flops) / np.bincount(group))[group]
