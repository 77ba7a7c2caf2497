"""Where a best shape is an end of what was run, so that its loss only bounds what a better size would reach."""

from __future__ import annotations

from collections.abc import Sequence

from bench.isoflop.analysis.differences import SeedDifference
from bench.isoflop.analysis.results import Results

NEAR_EDGE, AT_EDGE = ", near the edge", ", at the edge: a bound"


def edge(results: Results, method: str, budget: float) -> str:
    """Where the best shape is an end of what was run, or next to one, in words; or empty."""
    best = results.best(method, budget)
    if best.empty:
        return ""
    sizes = sorted(results.cell(method, budget)["forward_flops"].unique())
    place = sizes.index(best["forward_flops"].iloc[0])
    if place in (0, len(sizes) - 1):
        return AT_EDGE
    return NEAR_EDGE if place in (1, len(sizes) - 2) else ""


def below(
    results: Results, budget: float, added: Sequence[str], taken: Sequence[str], value: SeedDifference | None,
    limit: float = 0.0,
) -> bool | None:  # fmt: skip
    """Whether losses of best shapes `added` minus those `taken` are below `limit`; None where it cannot be told.

    The whole interval has to be on one side, and no best shape at an end of what was run may be what put it there:
    another size of that method would do as well or better.
    """
    if value is None or value.low is None or value.high is None:
        return None
    bounds = {name for name in (*added, *taken) if edge(results, name, budget) == AT_EDGE}
    if value.high < limit:
        return None if bounds & set(taken) else True
    if value.low > limit:
        return None if bounds & set(added) else False
    return None
