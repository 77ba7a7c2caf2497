"""The popular claims about Mixture-of-Depths, each beside what the study measured of it, and the verdict."""

from bench.report.isoflop.claims.cards import UNTESTED, Claim, claims
from bench.report.isoflop.claims.evidence import FAILS, HOLDS, OPEN

__all__ = ["FAILS", "HOLDS", "OPEN", "UNTESTED", "Claim", "claims"]
