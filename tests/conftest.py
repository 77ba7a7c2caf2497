"""The order of the tests: folders that train come first, so that no worker ends alone with a long file; and how long
the browser's tests wait.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

_FIRST = ("isoflop", "studies", "train", "command", "methods")

expect.set_options(timeout=30_000)  # a loaded machine takes longer than playwright's 5 s


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist's own order: files of few tests, the longest here, come last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))
