"""`python -m tools.gate_validation`: does the gate catch injected regressions, and pass unchanged re-runs?

Runs or continues the trials, about two hours on two cores, evaluates them and writes the page.
Exit status: 0 every target met, 1 a target missed or trials missing, 2 usage error.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import reports_errors
from tools.gate_validation.page import all_met, write_validation
from tools.gate_validation.record import FILE, load_validation


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Validate the gate, print where the page is, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    folder, command = options.results / "gate_validation", shlex.join(["python", "-m", "tools.gate_validation", *words])
    if options.pages_only:
        validation = load_validation(folder / FILE)
    else:
        from bench.config.compose import configure  # the page alone needs neither Hydra nor torch
        from tools.gate_validation.trials import validate

        validation = validate(configure(["+study=ci"]), options.reruns, folder, command)
    print(f"report: {write_validation(validation, options.reports)}")
    return 0 if all_met(validation) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gate_validation",
        description="Validates the regression gate on injected regressions and unchanged re-runs.",
    )
    parser.add_argument("--reruns", type=_count, default=100, metavar="N", help="unchanged re-runs (100)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="folder of records")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="folder of reports")
    parser.add_argument("--pages-only", action="store_true", help="only rewrite the page, from validation.json")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: it must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
