"""The verdict as JUnit XML, which most CI systems show: a suite a method, a case a figure.

The format is that of Jenkins' and Ant's schema (junit-10.xsd): testsuites / testsuite / testcase with failure, error
or skipped.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from bench.gate.compare import Finding, Verdict
from bench.gate.rules import words

# What XML 1.0 has no way to write (section 2.2).
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict) -> str:
    """Failing findings are failures, broken records errors; figures that are new or were not compared are skipped."""
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
    told = _legal(f"{finding.kind}: {finding.was} -> {finding.now} {finding.change} ({finding.certainty})")
    if finding.fails:
        Xml.SubElement(case, "failure", message=told, type=finding.kind)
    else:
        Xml.SubElement(case, "skipped", message=told)


def _count(suite: Xml.Element) -> None:
    suite.set("tests", str(len(suite)))
    for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{outcome}"))))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
