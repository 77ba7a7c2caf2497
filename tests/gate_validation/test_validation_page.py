"""The page of the experiment on the gate: what counts as caught, bars that do not move, and plain characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from bench.records.record import Environment
from bench.report.page import markdown_cell
from tools.gate_validation.page import bars, missed, write_proof
from tools.gate_validation.proof import Piece, Proof, Trial


def trials(count: int, status: int | None, planted: str | None = "a slip", slows: bool = False) -> list[Trial]:
    found = ["changed: mod, it's <b>FLOPs</b> & more: 1 -> 2"]
    return [
        Trial(name=f"{planted}{slows}{status}{n}", piece=1, planted=planted, slows=slows, status=status, findings=found,
              findings_total=9, slower=slows and status == 1, speed={"mod speed.train_step_over_dense": 1.0})
        for n in range(count)
    ]  # fmt: skip


def proof(*groups: list[Trial]) -> Proof:
    place = Environment(
        python="3.11", torch="2.13.0", device="cpu", device_name="a CPU", platform="Linux", threads=1, packages={}
    )
    pieces = [Piece(created="2026", git_commit="abc1234", environment=place)]
    return Proof(study="gate_proof", command="a command", side_by_side=2, pieces=pieces,
                 trials=[trial for group in groups for trial in group])  # fmt: skip


def outcomes(*groups: list[Trial]) -> list[str]:
    return [bar.outcome for bar in bars(proof(*groups))]


def slow(count: int, status: int | None) -> list[Trial]:
    return trials(count, status, slows=True)


def reruns(count: int, status: int | None) -> list[Trial]:
    return trials(count, status, planted=None)


def test_bars_are_met_by_all_trials_and_no_fewer():
    assert outcomes(trials(19, 1), trials(1, 4), slow(9, 1), slow(1, 0), reruns(99, 0), reruns(1, 1)) == ["met"] * 3
    assert outcomes(trials(5, 1), slow(2, 1), reruns(3, 0)) == ["not yet"] * 3
    assert missed(proof(trials(5, 1), slow(2, 1), reruns(3, 0)))
    assert outcomes() == ["not yet"] * 3


def test_a_bar_is_missed_as_soon_as_it_cannot_be_met():
    assert outcomes(trials(3, 1), trials(1, 0), slow(2, 0), reruns(2, 1)) == ["missed"] * 3


def test_a_study_that_broke_down_is_not_caught_and_a_rerun_that_did_is_an_alarm():
    whole = trials(19, 1), slow(8, 1), reruns(98, 0)
    assert outcomes(*whole, trials(1, None), slow(2, None), reruns(2, None)) == ["missed"] * 3


def test_the_page_tells_what_broke_down_and_that_findings_are_the_worst_few(tmp_path: Path):
    page = write_proof(proof(trials(1, None), trials(1, 1), slow(1, 1), reruns(1, 1)), tmp_path)
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "| broke down |" in text and "| caught |" in text and "not yet" in text and "at least 9 of 10" in text
    assert "the worst few findings" in text


def test_markdown_shows_arrows_and_apostrophes_as_they_are_and_no_html(tmp_path: Path):
    page = write_proof(proof(trials(1, 1), slow(1, 1), reruns(1, 1)), tmp_path)
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "it's &lt;b>FLOPs&lt;/b> &amp; more: 1 -> 2" in text
    assert "&gt;" not in text and "&#" not in text and "<b>" not in text


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "&lt;script&gt;", "> a quote", "a -> b, it's \"so\"", "<img src=x onerror=y>",
    "[a](b)", "<http://e.example>", "&#60;b&#62;", "**b** `c` ~~d~~ | e",
])  # fmt: skip
def test_a_cell_is_read_back_as_the_very_same_text(text):
    html = MarkdownIt("gfm-like", {"linkify": False}).render(str(markdown_cell(text)))
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert html == f"<p>{plain}</p>\n"
