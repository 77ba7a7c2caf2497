"""What the docs promise: links lead somewhere in the repository, and commands are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.config.compose import configure, expand

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"```(?:sh|yaml)\n(.*?)```", re.DOTALL)


def _commands() -> Iterator[str]:
    for page in PAGES:
        if page.name == "add_a_method.md":  # its commands need its package: tests/methods installs and runs it
            continue
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.search(r"python -m bench ([^#]*=[^#]*)", line):
                    yield found[1].strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files(page: Path):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("command", dict.fromkeys(_commands()))
def test_command_in_the_docs_is_valid(command: str):
    words = shlex.split(command)
    multirun = "-m" in words
    assert [configure(overrides) for overrides in expand([word for word in words if word != "-m"], multirun)]


def test_readme_and_changelog_stay_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900
    assert len((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()) < 120
