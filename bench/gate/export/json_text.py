"""The verdict as JSON, for scripts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from bench.gate.compare import Finding, Verdict
from bench.gate.load import Side
from bench.gate.terminal import summary


def json_text(verdict: Verdict) -> str:
    """Keys: schema_version, verdict, status, summary, compared, broken, notes, findings, baseline, current.

    A finding's severity is how many times its tolerance a figure moved; null where it was allowed no move at all.
    """
    content = {
        "schema_version": 1,
        "verdict": verdict.word,
        "status": verdict.status,
        "summary": summary(verdict),
        "compared": verdict.compared,
        "broken": verdict.broken,
        "notes": verdict.notes,
        "findings": [_finding(finding) for finding in verdict.findings],
        "baseline": _side(verdict.baseline),
        "current": _side(verdict.current),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    severity = finding.severity if math.isfinite(finding.severity) else None
    return asdict(finding) | {"severity": severity, "fails": finding.fails}


def _side(side: Side) -> dict[str, Any]:
    return {
        "folder": str(side.folder),
        "study": side.study,
        "created": side.created,
        "commit": side.commit,
        "machine": side.machine,
        "machine_name": side.machine_name,
    }
