"""The verdict in machine-readable formats: JSON, JUnit XML, Bencher Metric Format, github-action-benchmark.

Methods and figures keep their recorded names wherever a tool uses them as keys.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree as Xml

from bench.gate.compare import Finding, Verdict
from bench.gate.load import Side
from bench.gate.rules import rule_of, words
from bench.gate.text import summary
from bench.stats.interval import Interval

# What XML 1.0 cannot represent (section 2.2).
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNITS = {"nats": "nats", "noncausal": "nats", "loss": "nats", "bytes": "bytes", "bits_per_byte": "bits/byte"}


def json_text(verdict: Verdict) -> str:
    """Keys: schema_version, verdict, status, summary, retime, compared, broken, notes, findings, baseline, current.

    A finding's severity is its change as a multiple of the tolerance; null where the tolerance is 0.
    """
    content = {
        "schema_version": 1,
        "verdict": verdict.word,
        "status": verdict.status,
        "summary": summary(verdict),
        "retime": verdict.retime,
        "compared": verdict.compared,
        "broken": verdict.broken,
        "notes": verdict.notes,
        "findings": [_finding(finding) for finding in verdict.findings],
        "baseline": _side(verdict.baseline),
        "current": _side(verdict.current),
    }
    return _json(content)


def _finding(finding: Finding) -> dict[str, Any]:
    severity = finding.severity if math.isfinite(finding.severity) else None
    return asdict(finding) | {"severity": severity, "fails": finding.fails}


def _side(side: Side) -> dict[str, Any]:
    names = ("study", "created", "commit", "machine", "machine_name")
    return {"folder": str(side.folder)} | {name: getattr(side, name) for name in names}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def junit(verdict: Verdict) -> str:
    """JUnit XML, which most CI systems show: a suite per method, a case per figure.

    Failing findings are failures, broken records errors; new figures and figures not compared are skipped. The format
    is that of Jenkins' and Ant's schema (junit-10.xsd).
    """
    root = Xml.Element("testsuites", name="bench.gate")
    found = {(finding.method, finding.figure): finding for finding in verdict.findings}
    keys = dict.fromkeys([*verdict.baseline.figures, *verdict.current.figures, *found])
    for method in dict.fromkeys(method for method, _ in keys):
        suite = Xml.SubElement(root, "testsuite", name=_legal(method))
        for figure in (figure for own, figure in keys if own == method):
            name, key = words(figure) if figure else "everything", (method, figure)
            _case(suite, method, name, found.get(key), verdict.skipped.get(key))
        _count(suite)
    if verdict.broken:
        suite = Xml.SubElement(root, "testsuite", name="records")
        for line in verdict.broken:
            case = Xml.SubElement(suite, "testcase", classname="records", name=_legal(line), time="0")
            Xml.SubElement(case, "error", message=_legal(line), type="broken")
        _count(suite)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _case(suite: Xml.Element, method: str, name: str, finding: Finding | None, skipped: str | None) -> None:
    case = Xml.SubElement(suite, "testcase", classname=_legal(method), name=_legal(name), time="0")
    if skipped is not None:
        Xml.SubElement(case, "skipped", message=_legal(skipped))
    if finding is None or finding.kind == "improved":
        return
    message = _legal(f"{finding.kind}: {finding.was} -> {finding.now} {finding.change} ({finding.certainty})")
    if finding.fails:
        Xml.SubElement(case, "failure", message=message, type=finding.kind)
    else:
        Xml.SubElement(case, "skipped", message=message)


def _count(suite: Xml.Element) -> None:
    suite.set("tests", str(len(suite)))
    for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{outcome}"))))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)


def bencher(verdict: Verdict) -> str:
    """The current figures in Bencher Metric Format: benchmark -> measure -> value, with bounds if there are any.

    A benchmark per method, a measure per figure: https://bencher.dev/docs/reference/bencher-metric-format/
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (method, name), figure in verdict.figures.items():
        metric = {"value": figure.value}
        if figure.ends:
            metric |= dict(zip(("lower_value", "upper_value"), figure.ends, strict=True))
        found.setdefault(method, {})[name] = metric
    return _json(found)


def github_action_benchmark(verdict: Verdict) -> dict[str, str]:
    """The current figures for github-action-benchmark: file name -> text, a file per direction.

    Arrays of {name, value, unit, range?, extra?} for its tools customSmallerIsBetter and customBiggerIsBetter
    (https://github.com/benchmark-action/github-action-benchmark). A figure that should stay the same is in both files,
    so that a change in either direction raises an alert.
    """
    smaller: list[dict[str, Any]] = []
    bigger: list[dict[str, Any]] = []
    for (method, name), figure in verdict.figures.items():
        rule = rule_of(name, method)
        better = rule.better if rule is not None else "same"
        for entries, other in ((smaller, "higher"), (bigger, "lower")):
            if better != other:
                entries.append(_entry(method, name, figure))
    files = {"customSmallerIsBetter.json": smaller, "customBiggerIsBetter.json": bigger}
    return {name: _json(entries) for name, entries in files.items()}


def _entry(method: str, name: str, figure: Interval) -> dict[str, Any]:
    entry = {"name": f"{method}: {words(name)}", "value": figure.value, "unit": _unit(name), "extra": name}
    if figure.ends:
        entry["range"] = "{:.4g} to {:.4g}".format(*figure.ends)
    return entry


def _unit(name: str) -> str:
    part, last = name.split(".", 1)[0], name.rsplit(".", 1)[-1]
    if part == "flops" or last.endswith("_per_token"):
        unit = "bytes" if "bytes" in last else "FLOPs"
        return f"{unit}/token" if last.endswith("_per_token") else unit
    return next((unit for ending, unit in _UNITS.items() if last.endswith(ending)), "")
