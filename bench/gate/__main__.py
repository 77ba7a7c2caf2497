"""`python -m bench.gate BASELINE CURRENT`: what got worse since the baseline, as an exit status and a table.

Exit status: 0 fine, 1 regressed, 2 wrong use, 3 no data or nothing in common, 4 a record is broken or failed its audit.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.gate import history
from bench.gate.accept import accept
from bench.gate.compare import Verdict, compare
from bench.gate.export import bencher, github_action_benchmark, json_text, junit, markdown
from bench.gate.read import NoDataError, of_the_machine, read_side
from bench.gate.terminal import terminal
from bench.record import write_atomically

_EXPORTS: dict[str, tuple[Callable[[Verdict], str], str]] = {
    "json": (json_text, "the verdict and every finding, for scripts"),
    "markdown": (markdown, "for a pull request or a step summary"),
    "junit": (junit, "JUnit XML, a test case a figure"),
    "bencher": (bencher, "Bencher Metric Format, the current figures"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, write what was asked for, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _judge(options)
    except NoDataError as error:
        print(f"no data: {error}", file=sys.stderr)
        return 3
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'standard output'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except Exception:  # Python would exit with 1, which reads as regressed
        traceback.print_exc()
        return 4


def _judge(options: argparse.Namespace) -> int:
    baseline, current = read_side(options.baseline), read_side(options.current)
    if options.speed_only:
        baseline, current = of_the_machine(baseline), of_the_machine(current)
    verdict = compare(baseline, current)
    print(terminal(verdict))
    for name, (written, _) in _EXPORTS.items():
        if getattr(options, name) is not None:
            _write(getattr(options, name), written(verdict))
    if options.github_action_benchmark is not None:
        for name, text in github_action_benchmark(verdict).items():
            _write(options.github_action_benchmark / name, text)
    if options.history is not None:
        history.append(history.row_of(verdict, options.link), options.history)
    if options.accept:
        _accept(verdict)
        return 0
    return verdict.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gate",
        description="Compares a study with a baseline, every figure under its own rule.",
        epilog="exit status: 0 fine, 1 regressed, 2 wrong use, 3 no data, 4 a record is broken or failed its audit",
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="folder of records, such as results/ci")
    parser.add_argument("current", type=Path, metavar="CURRENT", help="folder of records to be judged")
    for name, (_, words) in _EXPORTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=words)
    parser.add_argument(
        "--github-action-benchmark", type=Path, metavar="DIR",
        help="its two files: customSmallerIsBetter.json and customBiggerIsBetter.json",
    )  # fmt: skip
    parser.add_argument("--history", type=Path, metavar="DIR", help="append the run to DIR/history.jsonl")
    parser.add_argument("--link", metavar="URL", help="where the run can be looked at, for the history")
    parser.add_argument(
        "--speed-only", action="store_true",
        help="judge only time and memory: for two studies of one machine, such as before and after a change",
    )  # fmt: skip
    parser.add_argument("--accept", action="store_true", help="put CURRENT in the place of BASELINE, regressed or not")
    return parser


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error
    write_atomically(path, text)


def _accept(verdict: Verdict) -> None:
    """Raises UserError where the current side is broken: a broken baseline would hide what comes after."""
    if verdict.current.broken:
        raise UserError(f"{verdict.current.folder} is not accepted: it is broken.")
    accept(verdict.current.folder, verdict.baseline.folder)
    print(f"{verdict.current.folder} is the new baseline in {verdict.baseline.folder}.")


if __name__ == "__main__":
    sys.exit(main())
