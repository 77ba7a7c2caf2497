"""The whole site, built once from the committed records, and its pages as Chromium lays them out."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gate_histories import realistic
from playwright.sync_api import Browser

from bench.gate.dashboard import build
from bench.report.__main__ import main as report
from tools.gate_validation.__main__ import main as gate_validation

ROOT = Path(__file__).parents[2]
MEASURE = Path(__file__).with_name("measure.js").read_text(encoding="utf-8")
AXE = os.environ.get("AXE_CORE")  # axe.min.js of npm's axe-core
PICTURES = os.environ.get("SCREENSHOTS")  # a folder for pictures of every page
AUDITED = [(390, "dark"), (1280, "light")]  # by axe, which takes seconds on a long page
WIDTHS = {390: 844, 1280: 800}  # a phone and a laptop: pixels of width -> of height


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every report of `results`, a dashboard of a made-up history, and the front page."""
    reports = tmp_path_factory.mktemp("site")
    build(realistic(60), reports / "dashboard")
    gate_validation(["--pages-only", "--results", str(ROOT / "results"), "--reports", str(reports)])
    assert report([str(ROOT / "results"), "--reports", str(reports)]) == 0
    return reports


Layout = Callable[[str, int, str], dict[str, Any]]


@pytest.fixture(scope="session")
def layout(site: Path, browser: Browser) -> Layout:
    """(page, width, scheme) -> what measure.js finds, `faults` of the page and, with AXE_CORE, axe's `findings`."""

    @cache
    def measured(name: str, width: int, scheme: str) -> dict[str, Any]:
        context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and faults.append(f"console: {message.text}"))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on("request", lambda request: request.url.startswith("file:") or faults.append(f"fetched: {request.url}"))
        page.goto((site / name).as_uri())
        page.wait_for_load_state("networkidle")
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name.replace('/', '-')}-{width}-{scheme}.png")
        found = page.evaluate(MEASURE) | {"faults": list(faults)}
        if AXE and (width, scheme) in AUDITED:
            page.add_script_tag(path=AXE)
            found["findings"] = page.evaluate(
                "axe.run({ resultTypes: ['violations'], preload: false }).then(({ violations }) => violations"
                ".filter(({ impact }) => ['serious', 'critical'].includes(impact))"
                ".flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`)))"
            )
        context.close()
        return found

    return measured
