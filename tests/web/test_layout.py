"""Every page as Chromium lays it out, on a phone and a laptop, light and dark."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from web_site import AUDITED, AXE, PICTURES, ROOT, WIDTHS, Layout

REPORTS = sorted(f"{path.parent.name}/index.html" for path in ROOT.glob("reports/*/index.html"))
PAGES = ["index.html", *REPORTS, "dashboard/index.html", "dashboard/charts.html"]

pages = pytest.mark.parametrize("name", PAGES)
answers = pytest.mark.parametrize("name", ["index.html", *REPORTS])  # the dashboard's answer is a list of findings
widths = pytest.mark.parametrize("width", WIDTHS)
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


@pages
@widths
@schemes
def test_page_needs_no_sideways_scrolling(layout: Layout, name: str, width: int, scheme: str):
    assert layout(name, width, scheme)["overflow"] <= 0


@pages
@widths
def test_text_in_figures_has_eleven_pixels_or_more(layout: Layout, name: str, width: int):
    assert layout(name, width, "light")["small"] == []


@pages
@widths
def test_text_in_figures_does_not_overlap(layout: Layout, name: str, width: int):
    assert layout(name, width, "light")["overlaps"] == []


@answers
@widths
def test_answer_is_on_the_first_screen(layout: Layout, name: str, width: int):
    """All of it, or at least a good part of a screen."""
    answer = layout(name, width, "light")["answer"]
    assert answer["shown"] >= min(answer["height"], 0.25 * WIDTHS[width]) > 0


@widths
def test_isoflop_figure_is_whole_on_the_first_screen(layout: Layout, width: int):
    hero = layout("isoflop_cpu/index.html", width, "light")["hero"]
    assert hero["bottom"] <= WIDTHS[width] and hero["width"] >= 0.85 * width


@widths
def test_isoflop_page_shows_at_most_2000_words(layout: Layout, width: int):
    assert 300 < layout("isoflop_cpu/index.html", width, "light")["words"] <= 2000


@pages
@widths
@schemes
def test_page_has_no_errors_and_fetches_only_files(layout: Layout, name: str, width: int, scheme: str):
    assert layout(name, width, scheme)["faults"] == []


@pages
def test_links_lead_to_files(layout: Layout, site: Path, name: str):
    """Records lie outside of the site, where the repository has them."""
    found = layout(name, 1280, "light")
    files = [Path(unquote(urlsplit(link).path)) for link in found["links"] if link.startswith("file:")]
    assert [str(path) for path in files if not path.exists()] == []
    assert found["anchors"] == []


@pages
@pytest.mark.parametrize(("width", "scheme"), AUDITED)
@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js (npm install axe-core)")
def test_axe_finds_nothing_serious(layout: Layout, name: str, width: int, scheme: str):
    assert layout(name, width, scheme)["findings"] == []


@pytest.mark.skipif(PICTURES is None, reason="SCREENSHOTS does not name a folder")
def test_every_page_is_pictured(layout: Layout):
    for name in PAGES:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                layout(name, width, scheme)
    assert len(list(Path(PICTURES or "").glob("*.png"))) >= 4 * len(PAGES)
