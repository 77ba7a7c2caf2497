"""`python -m bench.gate BASELINE CURRENT`: what regressed since the baseline, as an exit status and a table.

Exit status: 0 fine, 1 regressed, 2 usage error, 3 no data or nothing in common, 4 a record is broken or failed its
audit, or the gate itself failed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.gate import history
from bench.gate.compare import Verdict, compare, confirmed
from bench.gate.export import bencher, github_action_benchmark, json_text, junit
from bench.gate.load import NoDataError, read_side, time_and_memory
from bench.gate.text import markdown, plain, terminal
from bench.records.ci import replace_study
from bench.records.files import write_atomically

_EXPORTS: dict[str, tuple[Callable[[Verdict], str], str]] = {
    "json": (json_text, "the verdict and every finding, for scripts"),
    "markdown": (markdown, "a comment on a pull request or a step summary"),
    "junit": (junit, "JUnit XML, a test case per figure"),
    "bencher": (bencher, "the current figures in Bencher Metric Format"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, write the requested files, and return the exit status."""
    options = _options(arguments)
    try:
        return _compare(options)
    except NoDataError as error:
        return _failed(f"no data: {error}", 3)
    except UserError as error:
        return _failed(f"error: {error}", 2)
    except OSError as error:
        return _failed(f"error: {error.filename or 'standard output'}: {error.strerror or error}.", 2)
    except Exception:  # Python would exit with 1, which reads as regressed
        traceback.print_exc()
        return 4


def _failed(line: str, status: int) -> int:
    print(plain(line), file=sys.stderr)
    return status


def _compare(options: argparse.Namespace) -> int:
    baseline, current = read_side(options.baseline), read_side(options.current)
    if options.speed_only:
        baseline, current = time_and_memory(baseline, current)
    verdict = compare(baseline, current)
    if options.again is not None:
        verdict = confirmed(verdict, read_side(options.again))
    recent = history.recent_values(verdict, options.history) if options.history is not None else {}
    for name, (written, _) in _EXPORTS.items():
        if getattr(options, name) is not None:
            _write(getattr(options, name), written(verdict, recent) if written is markdown else written(verdict))
    if options.github_action_benchmark is not None:
        for name, text in github_action_benchmark(verdict).items():
            _write(options.github_action_benchmark / name, text)
    if options.history is not None:
        history.append(history.row_of(verdict, options.link), options.history)
    _show(terminal(verdict))
    if not options.accept:
        return verdict.status
    if verdict.current.broken:
        return _failed(f"{current.folder} is not accepted: a broken baseline would hide later regressions.", 4)
    replace_study(baseline.folder, current.folder)
    _show(plain(f"{current.folder} is the new baseline in {baseline.folder}."))
    return 0


def _show(text: str) -> None:
    """Print at once; a closed pipe is not an error. Raises OSError if the text cannot be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names and units hold characters that some encodings lack
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at exit, and fails
        if not isinstance(error, BrokenPipeError):
            raise


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Exits with status 2 if options contradict each other or would overwrite what is compared."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.accept and options.speed_only:
        parser.error("--accept and --speed-only exclude each other: --accept takes all of CURRENT, not only its speed")
    files = [path for name in _EXPORTS if (path := getattr(options, name)) is not None]
    for path in [*files, *filter(None, (options.github_action_benchmark, options.history))]:
        for side in (options.baseline, options.current):
            if path.resolve().is_relative_to(side.resolve()):
                parser.error(f"{path} is inside {side}, which is compared; choose a path outside it")
    if len({path.resolve() for path in files}) < len(files):
        parser.error("two options name the same file; give each its own")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gate",
        description="Compares a study with a baseline, each figure under its own rule.",
        epilog="exit status: 0 fine, 1 regressed, 2 usage error, 3 no data, 4 a record is broken or failed its audit, "
        "or the gate itself failed",
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="folder of records, such as results/ci")
    parser.add_argument("current", type=Path, metavar="CURRENT", help="folder of records to compare with it")
    for name, (_, words) in _EXPORTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=words)
    parser.add_argument(
        "--github-action-benchmark", type=Path, metavar="DIR",
        help="write customSmallerIsBetter.json and customBiggerIsBetter.json into DIR",
    )  # fmt: skip
    parser.add_argument("--history", type=Path, metavar="DIR", help="append this run to DIR/history.jsonl")
    parser.add_argument("--link", metavar="URL", help="address of the run, kept in the history")
    parser.add_argument(
        "--speed-only", action="store_true",
        help="compare only time and memory, of two studies on one machine, such as before and after a change",
    )  # fmt: skip
    parser.add_argument(
        "--again", type=Path, metavar="DIR",
        help="a study that timed once more what --json lists under retime; a step no longer slower does not fail",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="store_true", help="make CURRENT the new baseline in the folder BASELINE, regressed or not"
    )
    return parser


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error
    write_atomically(path, text)


if __name__ == "__main__":
    sys.exit(main())
