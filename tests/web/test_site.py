"""The links between pages, their addresses for sharing, and the pages served."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from report_records import make_record, save

from bench.report.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of two comparisons, in a repository that has results/ next to reports/."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    for name in ("first", "second"):
        for seed in range(3):
            for method, loss in (("dense", 2.0), ("mod", 1.9)):
                record = make_record(method, seed, loss + 0.001 * seed, name=name, run_id=f"{name}-{method}-{seed}")
                save(tmp_path / "results", record)
    return tmp_path


def build(folder: Path, *options: str) -> dict[str, str]:
    assert main([str(folder / "results"), "--reports", str(folder / "reports"), *options]) == 0
    names = ("index.html", "first/index.html", "second/index.html")
    return {name: (folder / "reports" / name).read_text(encoding="utf-8") for name in names}


def test_every_page_links_its_siblings_the_front_page_and_its_records(two: Path):
    pages = build(two)
    for name, other in (("first", "second"), ("second", "first")):
        text = pages[f"{name}/index.html"]
        assert f'href="../{other}/index.html"' in text and 'href="../index.html"' in text
        assert 'href="../../results/tiny/"' in text
        assert 'href="figures/' in text and 'href="tables/comparison.csv"' in text
    assert "Dashboard" not in pages["first/index.html"]


def test_front_page_begins_with_the_newest_comparison(two: Path):
    front = build(two)["index.html"]
    assert front.index("<h1>") < front.index('<table class="answer"') < front.index('<article class="card">')
    assert "−0.100" in front


def test_a_dashboard_is_linked_from_every_page_once_it_is_there(two: Path):
    build(two)
    (two / "reports" / "dashboard").mkdir()
    (two / "reports" / "dashboard" / "index.html").write_text("<title>charts</title>", encoding="utf-8")
    assert all("dashboard/index.html" in text for text in build(two).values())


def test_addresses_are_absolute_and_remembered(two: Path):
    build(two, "--site-url", "https://a.example/bench", "--repository", "https://code.example/a/b")
    pages = build(two)  # without them
    first = pages["first/index.html"]
    assert '<meta property="og:image" content="https://a.example/bench/first/share.png">' in first
    assert '<link rel="canonical" href="https://a.example/bench/first/">' in first
    assert 'href="https://code.example/a/b/commit/abc1234"' in first
    assert 'href="https://code.example/a/b/tree/HEAD/results/tiny"' in first
    assert '<link rel="canonical" href="https://a.example/bench/">' in pages["index.html"]


def test_the_repository_of_a_workflow_is_linked(two: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    assert 'href="https://github.com/a/b/commit/abc1234"' in build(two)["first/index.html"]


def test_pages_written_again_are_the_same(two: Path):
    assert build(two) == build(two)


def test_reports_are_served_until_interrupted(two: Path):
    command = [sys.executable, "-m", "bench.report", "results", "--serve"]
    quiet = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment = quiet | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=two,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background ignores it
    ) as run:
        assert run.stdout and run.stderr
        address = next(found[0] for line in run.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"second/index.html" in answer.read()
        run.send_signal(signal.SIGINT)
        assert run.stderr.read() == "" and run.wait(20) == 0
