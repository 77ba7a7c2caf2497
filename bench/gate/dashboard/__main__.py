"""`python -m bench.gate.dashboard HISTORY [--reports DIR]` builds the site in DIR/dashboard.

Exit status: 0 built, 2 usage error or nothing to read, 3 a history without a row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import reports_errors
from bench.gate import history
from bench.gate.dashboard import build


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site, print where it is, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gate.dashboard", description="Builds a static site from the history."
    )
    parser.add_argument("history", type=Path, metavar="HISTORY", help="folder given to python -m bench.gate --history")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder to write to (reports)")
    options = parser.parse_args(arguments)
    rows, problems = history.read(options.history)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if not rows:
        print(f"no data: {options.history / history.FILE} holds no run.", file=sys.stderr)
        return 3
    print(build(rows, options.reports / "dashboard", history.read_notes(options.history)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
