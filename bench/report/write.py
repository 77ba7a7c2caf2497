"""Writes the report of a comparison as one folder, whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from bench.config.identity import digest
from bench.errors import UserError
from bench.report.load import Comparison, read_results
from bench.report.page import render_html, render_markdown, sections


def build(results: Path, reports: Path) -> list[Path]:
    """Write `reports`/<comparison>/index.html, report.md, figures/ and tables/ for every comparison below `results`.

    Returns the pages. Broken files are logged and named in the report of their comparison. Raises UserError where
    there is nothing to read or `reports` cannot be written.
    """
    comparisons, _ = read_results(results)
    return [write_report(comparison, reports) for comparison in comparisons]


def write_report(comparison: Comparison, reports: Path) -> Path:
    """Write one report and return its page. The folder is made beside its place and then moved there."""
    target = reports / folder_name(comparison.name)
    if target.exists() and not (target / "index.html").exists():
        raise UserError(
            f"{target} is there already and is not a report. Move it away or give another --reports folder."
        )
    try:
        reports.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=reports) as scratch:
            fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
            _write_files(comparison, fresh)
            _swap(fresh, target, old)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror}. Free some space or choose another folder."
        ) from error
    return target / "index.html"


def folder_name(name: str) -> str:
    """`name` as one plain folder name; a changed name gets a fingerprint, so that two names never share a folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain and plain == name else f"{plain or 'comparison'}-{digest(name, 6)}"


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Move `fresh` to `target` and what was there to `old`, or put that back."""
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(fresh, target)
    except BaseException:
        if old.exists():
            os.replace(old, target)
        raise


def _write_files(comparison: Comparison, folder: Path) -> None:
    shown = sections(comparison)
    for section in shown:
        figures, tables = folder / "figures" / section.folder, folder / "tables" / section.folder
        figures.mkdir(parents=True)
        tables.mkdir(parents=True)
        for drawing in section.drawings:
            (figures / f"{drawing.name}.svg").write_text(drawing.svg, encoding="utf-8")
            (figures / f"{drawing.name}.png").write_bytes(drawing.png)
        for table in section.tables:
            table.data.to_csv(tables / f"{table.name}.csv", index=False, lineterminator="\n")
    (folder / "report.md").write_text(render_markdown(comparison, shown), encoding="utf-8")
    (folder / "index.html").write_text(render_html(comparison, shown), encoding="utf-8")
