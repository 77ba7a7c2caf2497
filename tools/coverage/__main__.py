"""`python -m tools.coverage [PART ...] [--draws N]`: print the tables as Markdown; without PART all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from tools.coverage import documents, intervals, verdicts

Table = tuple[str, list[str], list[list[str]]]  # caption, columns, rows

PARTS: dict[str, Callable[[int, np.random.Generator], Table]] = {
    "intervals": intervals.table,
    "documents": documents.table,
    "same_method": verdicts.same_method,
    "verdicts": verdicts.one_budget,
    "pooled": verdicts.pooled,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.coverage", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--draws", type=int, default=4000, help="simulations of each row (default 4000)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        caption, columns, rows = PARTS[name](options.draws, np.random.default_rng(0))
        print(f"{caption}\n")
        for row in (columns, ["---", *["--:"] * (len(columns) - 1)], *rows):
            print(f"| {' | '.join(row)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
