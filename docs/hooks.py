"""The site shows the committed reports and their figures, which are stored once, under reports/.

Pages link to them as `../reports/...`, which works where Markdown is read in the repository. This module adds the
files to the site and adjusts the links.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_SHOWN = ("index.html", "figures/*.svg", "tables/*.csv")
ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(\]\(|src=\")((?:\.\./)+)(?=reports/)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add each report's page, figures and tables."""
    reports = ROOT / "reports"
    for path in [path for kind in _SHOWN for path in sorted(reports.glob(f"*/{kind}"))]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make links to reports relative to docs/ instead of the repository."""
    up = posixpath.relpath(".", posixpath.dirname(page.file.src_uri) or ".")
    return _LINK.sub(lambda found: found[1] + (f"{up}/" if up != "." else ""), markdown)
