"""What training writes and shows: `steps.csv`, row by row, and the progress bar of a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bench.errors import UserError
from bench.formats import duration
from bench.records.files import write_atomically
from bench.train.step import StepReport

_COLUMNS = ["step", "tokens", "train_flops", "seconds", "loss", "lr", "grad_norm"]


class StepLog:
    """`steps.csv`; on resuming, rows after the checkpoint are dropped, because they will be written again.

    The kept rows are on the disk before the first new one, so a kill at any moment loses no row of a checkpoint.
    Raises UserError, naming the file, if it cannot be read or written.
    """

    def __init__(self, path: Path, resume_at: int):
        self.path = path
        kept = _rows_until(resume_at, path) if resume_at and path.exists() else []
        write_atomically(path, _as_csv(kept))
        with self._naming_the_file():
            self.file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
        self.writer = csv.DictWriter(self.file, list(kept[0])) if kept else None

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        with self._naming_the_file():
            self.file.close()

    def write(self, step: int, tokens: int, flops: float, seconds: float, report: StepReport, lr: float) -> None:
        """Add the row of a step; `tokens`, `flops` and `seconds` are totals so far."""
        row = {
            "step": step,
            "tokens": tokens,
            "train_flops": f"{flops:.6e}",
            "seconds": f"{seconds:.3f}",
            "loss": f"{report.loss:.5f}",
            "lr": f"{lr:.4e}",
            "grad_norm": f"{report.grad_norm:.4f}",
        } | {name: f"{value:.5f}" for name, value in report.metrics.items()}
        with self._naming_the_file():
            if self.writer is None:
                self.writer = csv.DictWriter(self.file, [*_COLUMNS, *report.metrics])
                self.writer.writeheader()
            self.writer.writerow(row)

    def flush(self) -> None:
        with self._naming_the_file():
            self.file.flush()

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Any of these calls may write to the disk: an error becomes one line that names the file."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}. Free some space or set results_dir to another folder."
            ) from error


def _rows_until(step: int, path: Path) -> list[dict[str, str]]:
    """The rows of a log up to `step`, without a row that a kill left incomplete."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            whole = [row for row in csv.DictReader(file) if None not in row.values()]
        return [row for row in whole if int(row["step"]) <= step]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged. Delete {path.parent} to train from the start.") from error


def _as_csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Progress:
    """The state of a training run after a step. seconds: of steps only, over the whole run so far."""

    share: float  # of the budget, 0 to 1
    loss: float
    tokens: int
    flops: float
    seconds: float


Show = Callable[[Progress], None]


@contextmanager
def terminal_bar(label: str, matmul_flops: float) -> Iterator[Show]:
    """A line with the time left, loss, tokens/s and the share reached of `matmul_flops` (FLOP/s); a narrow terminal
    cuts its end.
    """
    layout = "{percentage:3.0f}% {desc}"
    with tqdm(total=1.0, desc=label, bar_format=layout, dynamic_ncols=True, mininterval=0.5) as bar:

        def show(now: Progress) -> None:
            bar.n = now.share
            bar.set_description_str(
                f"{label}: {duration(now.seconds * (1 - now.share) / now.share)} left, loss {now.loss:.3f}, "
                f"{now.tokens / now.seconds:,.0f} tokens/s, {now.flops / now.seconds / matmul_flops:.0%} of peak",
                refresh=False,
            )
            bar.update(0)

        yield show
