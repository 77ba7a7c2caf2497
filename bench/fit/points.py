"""Points from a CSV file: checked row by row, completed, grouped by budget. Nothing is dropped without a word."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError

_SAME_BUDGET = 0.01  # runs end within a step of their budget; what is closer than this belongs together
_LEAST_LOSS, _MOST = 1e-6, 1e60  # what is beyond is a mistake, and would not survive being squared
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

    Rows that cannot be used are named in `notes`. Raises UserError where the file, a column or every row is of no use.
    """
    try:
        frame = pd.read_csv(path, skipinitialspace=True, dtype=str, keep_default_na=False)  # a method may be called NA
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}.") from error
    missing = [name for name in ("method", "flops", "loss") if name not in frame]
    if missing or not {"params", "tokens"} & set(frame):
        needed = ", ".join(missing) or "params or tokens"
        hint = " Columns are separated by commas." if len(frame.columns) == 1 else ""
        raise UserError(f"{path} has no column {needed}; it needs method, flops, loss and one of params, tokens.{hint}")
    if frame.empty:
        raise UserError(f"{path} holds column names and no row.")
    return check_points(frame, str(path))


def check_points(frame: pd.DataFrame, source: str) -> Points:
    """The usable rows of `frame`, completed, and what was left out and why."""
    frame = frame.copy()
    frame["method"] = frame["method"].astype("string").str.split().str.join(" ")  # on one line
    given = [name for name in _NUMBERS if name in frame]
    for name in given:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    numbers = frame[given]
    least = np.where(np.array(given) == "loss", _LEAST_LOSS, 1.0)
    usable = np.isfinite(numbers) & (numbers >= least) & (numbers <= _MOST)
    bad = ~usable.all(axis=1) | frame["method"].isna() | (frame["method"] == "")
    notes = []
    if bad.any():
        lines = ", ".join(str(row + 2) for row in np.flatnonzero(bad)[:12])
        notes.append(
            f"{bad.sum()} of {len(frame)} rows are left out, for a value is missing, not a positive number, or beyond "
            f"reason: line {lines}{' and more' if bad.sum() > 12 else ''}."
        )
    frame = frame[~bad].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{source} holds no point that can be used: every row lacks a positive number.")
    if "tokens" not in frame:
        frame["tokens"] = frame["flops"] / (6 * frame["params"])
        notes.append("tokens are derived: flops / (6 params).")
    if "params" not in frame:
        frame["params"] = frame["flops"] / (6 * frame["tokens"])
        notes.append("params are derived: flops / (6 tokens).")
    ratio = float((frame["flops"] / (6 * frame["params"] * frame["tokens"])).median())
    if not 0.1 < ratio < 10:
        notes.append(f"flops are {ratio:.3g} times 6 x params x tokens: is a column in another unit?")
    repeated = frame.duplicated(["method", "flops", "loss", "params", "tokens"])
    if repeated.any():
        notes.append(f"{repeated.sum()} rows repeat another one exactly; each of them counts.")
    frame["method"] = frame["method"].astype(str)
    frame["budget"] = _budgets(frame["flops"].to_numpy(dtype=float))
    return Points(frame, notes)


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
