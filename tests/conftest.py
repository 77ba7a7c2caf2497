"""The order of the tests: folders that train come first, so that no worker ends alone with a long file; and the one
browser of a process.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

_FIRST = ("isoflop", "studies", "train", "command", "methods")

expect.set_options(timeout=30_000)  # a loaded machine takes longer than playwright's 5 s


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist's own order: files of few tests, the longest here, come last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, started once: playwright allows one instance of itself in a process."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
