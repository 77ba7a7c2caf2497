"""`python -m tools.coverage [PART ...] [--draws N] [--kept FILE]`: print tables as Markdown, all without PART."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.coverage import documents, fits, intervals, verdicts

Table = tuple[str, list[str], list[list[str]]]  # caption, columns, rows

PARTS: dict[str, Callable[[int, np.random.Generator], Table]] = {
    "intervals": intervals.table,
    "documents": documents.table,
    "same_method": verdicts.same_method,
    "verdicts": verdicts.one_budget,
    "pooled": verdicts.pooled,
}
FITS = {"fits": fits.table, "law": fits.law_table}  # minutes to hours


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.coverage", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join([*PARTS, *FITS])}")
    parser.add_argument("--draws", type=int, default=4000, help="simulations of each row (default 4000)")
    parser.add_argument("--kept", type=Path, help="CSV of the chunks of one of fits, law: those there are not repeated")
    options = parser.parse_args(arguments)
    names = [*PARTS, *FITS]
    if unknown := set(options.parts) - set(names):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if options.kept and (len(options.parts) != 1 or options.parts[0] not in FITS):
        parser.error("--kept is of one part, fits or law")
    for name in options.parts or names:
        own = (
            FITS[name](options.draws, options.kept)
            if name in FITS
            else PARTS[name](options.draws, np.random.default_rng(0))
        )
        caption, columns, rows = own
        print(f"{caption}\n")
        for row in (columns, ["---", *["--:"] * (len(columns) - 1)], *rows):
            print(f"| {' | '.join(row)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
