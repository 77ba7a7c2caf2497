"""The site shows the committed reports and their figures, which are stored once, under reports/.

Pages link to them as `../reports/...`, which works where Markdown is read in the repository. This module adds the
files to the site and adjusts the links; the reports then link the docs, and their records in the repository.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from bench.web.site import PAGE, Address, front_page, link_page, read_cards, repository

DOCS = [("Docs", "../index.html")]  # from the front page of the reports
ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(\]\(|src=\")((?:\.\./)+)(?=reports/)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the reports with their files, and their front page."""
    reports = ROOT / "reports"
    pages = read_cards(reports)
    url = f"{config.site_url.rstrip('/')}/reports/" if config.site_url else ""
    address = Address(url, config.repo_url or repository(), records=False)
    cards = list(pages.values())
    for path in sorted(path for path in reports.rglob("*.*") if path.suffix != ".md" and path != reports / PAGE):
        name = path.relative_to(ROOT).as_posix()
        if path in pages:
            text = link_page(path.read_text(encoding="utf-8"), pages[path], cards, address, DOCS)
            files.append(File.generated(config, name, content=text))
        else:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, f"reports/{PAGE}", content=front_page(cards, address, DOCS)))
    return files


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Add the Markdown copies of the reports as they are, not as pages of the docs."""
    for path in sorted((ROOT / "reports").rglob("*.md")):
        shutil.copyfile(path, Path(config.site_dir) / path.relative_to(ROOT))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make links to reports relative to docs/ instead of the repository."""
    up = posixpath.relpath(".", posixpath.dirname(page.file.src_uri) or ".")
    return _LINK.sub(lambda found: found[1] + (f"{up}/" if up != "." else ""), markdown)
