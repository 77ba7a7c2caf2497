"""`python -m bench.report [RESULTS] [--reports DIR]` rebuilds every report from its records.

Exit status: 0 all built, 1 built but a file was broken (each is named on stderr), 2 a mistake or nothing to read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.bars import FILE as BARS
from bench.bars import load_bars
from bench.errors import UserError
from bench.gate.proof import FILE as PROOF
from bench.gate.proof import load_proof
from bench.isoflop import FILE as ISOFLOP
from bench.report.bars import write_bars
from bench.report.isoflop import write_isoflop
from bench.report.load import read_results, runs_of_comparisons
from bench.report.proof import write_proof
from bench.report.write import write_report

# A study's own file -> how its report is written.
_STUDIES: dict[str, Callable[[Path, Path], Path]] = {
    BARS: lambda path, reports: write_bars(load_bars(path), reports),
    ISOFLOP: lambda path, reports: write_isoflop(path.parent, reports),
    PROOF: lambda path, reports: write_proof(load_proof(path), reports),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the reports, print where they are, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Rebuild reports from records.")
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder of records (results)")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder to write to (reports)")
    options = parser.parse_args(arguments)
    broken = False
    try:
        studies = [(path, write) for name, write in _STUDIES.items() for path in sorted(options.results.rglob(name))]
        for path, write in studies:
            try:
                print(write(path, options.reports))
            except UserError as error:
                broken = True
                print(f"warning: {error}", file=sys.stderr)
        alone = studies and not runs_of_comparisons(options.results)
        comparisons, problems = ([], []) if alone else read_results(options.results)
        for comparison in comparisons:
            print(write_report(comparison, options.reports))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'standard output'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    return 1 if problems or broken else 0


if __name__ == "__main__":
    sys.exit(main())
