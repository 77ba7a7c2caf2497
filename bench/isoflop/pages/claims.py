"""The claims as a matrix: each with its verdict and the intervals that decide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.isoflop.analysis.claims import Claim
from bench.isoflop.analysis.evidence import Evidence
from bench.isoflop.pages.section import interval_columns
from bench.stats.verdict import Mark as Verdict
from bench.web.figures import BAD, GOOD, MUTED
from bench.web.intervals import Mark, Scale
from bench.web.tables import Table

_MOST = 4  # pieces of evidence that a row shows; of more, the lowest and the highest
_COLOURS = {Verdict.SUPPORTED: GOOD, Verdict.CONTRADICTED: BAD}


@dataclass(frozen=True)
class ClaimRow:
    """A claim with the evidence that it shows, on one scale. lines: the limits that the claim sets."""

    claim: Claim
    shown: list[tuple[Evidence, Mark | None]]
    scale: Scale
    lines: list[float]
    more: int  # pieces of evidence that are not shown


def claim_rows(found: Sequence[Claim]) -> list[ClaimRow]:
    """A row per claim."""
    return [_row(claim) for claim in found]


def _row(claim: Claim) -> ClaimRow:
    evidence = list(claim.evidence)
    if len(evidence) > _MOST:
        ordered = sorted(evidence, key=lambda each: each.value.value if each.value else math.inf)
        evidence = [ordered[0], next(each for each in reversed(ordered) if each.value or each is ordered[0])]
    lines = sorted({limit for each in evidence if each.value for limit in each.limits}) or [0.0]
    shown = [(each, _drawn(each)) for each in evidence]
    scale = Scale([mark for _, mark in shown if mark], lines)
    return ClaimRow(claim, shown, scale, lines, len(claim.evidence) - len(shown))


def _drawn(each: Evidence) -> Mark | None:
    """An end of a ratio at 0 is open, as its words say."""
    if each.value is None:
        return None
    value = replace(each.value, low=-math.inf) if each.value.low == 0.0 else each.value
    return Mark(each.text, value, _COLOURS.get(each.mark, MUTED))


def claims_table(found: Sequence[Claim]) -> Table:
    """A row per piece of evidence, for the CSV alone."""
    rows = [
        {"claim": claim.text, "verdict": claim.verdict, "evidence": each.text, "mark": each.mark}
        | interval_columns(each.value, "value") for claim in found for each in claim.evidence
    ]  # fmt: skip
    columns = ["claim", "verdict", "evidence", "mark", "value", "value_low", "value_high"]
    data = pd.DataFrame(rows, columns=columns)
    return Table("claims", "every piece of evidence behind the verdicts on the claims", [], [], data)


def tally(found: Sequence[Claim]) -> str:
    """How many claims have each mark."""
    each = ", ".join(f"{sum(claim.verdict == mark for claim in found)} {mark}" for mark in Verdict)
    return f"{len(found)} claims: {each}."
