"""`python -m bench.fit POINTS.csv`: isoFLOP fits to your own points.

Columns: method, flops, loss (nats/token), and params or tokens or both. Writes fit.json, fit.svg and fit.md next to it.
Exit status: 0 done, 2 a mistake.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError, reports_errors

_WRITTEN = ("fit.json", "fit.svg", "fit.md")
_FEWEST = 100  # resamples that a 95 % interval needs


def _share(text: str) -> float:
    """`5%` or `0.05`."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share such as 5%.")
    return value


def _flops(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1e60:
        raise argparse.ArgumentTypeError(f"{text} is not a number of FLOPs such as 3.8e25.")
    return value


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, write, print the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fit",
        description="isoFLOP fits to points from a CSV file; writes fit.json, fit.svg and fit.md next to it.",
    )
    parser.add_argument("points", type=Path, help="CSV with method, flops, loss (nats/token), and params or tokens")
    parser.add_argument("--bootstraps", type=int, default=1000, help="resamples behind the 95 %% intervals (1000)")
    parser.add_argument("--cluster", type=_share, help="put FLOPs within this share, such as 5%%, into one budget")
    parser.add_argument(
        "--within", type=_share, help="leave out of parabolas what is further above the best loss of its budget: 6%%"
    )
    parser.add_argument(
        "--at", type=_flops, nargs="+", default=[], metavar="FLOPS", help="predict optimal params, tokens and loss"
    )
    options = parser.parse_args(arguments)
    if options.bootstraps != 0 and options.bootstraps < _FEWEST:
        raise UserError(
            f"--bootstraps {options.bootstraps} is not allowed: use at least {_FEWEST}, or 0 for no intervals."
        )
    if options.points.name in _WRITTEN:
        raise UserError(f"the fit would overwrite {options.points}: give the points another name.")
    from bench.fit import isoflop
    from bench.fit.page import figure, table
    from bench.records.files import write_atomically

    path: Path = options.points
    fits = isoflop(
        path, options.bootstraps, progress=options.bootstraps > 0, cluster=options.cluster, within=options.within,
        at=options.at,
    )  # fmt: skip
    text = table(fits)
    write_atomically(path.with_name("fit.json"), json.dumps(fits.plain(), indent=2, allow_nan=False) + "\n")
    write_atomically(path.with_name("fit.svg"), figure(fits).svg)
    write_atomically(path.with_name("fit.md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
