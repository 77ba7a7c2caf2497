"""The page of the validation: what counts as caught, fixed targets, and plain characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from bench.records.record import Environment
from bench.web.render import markdown_cell
from tools.gate_validation.page import all_met, goals, write_validation
from tools.gate_validation.record import Batch, Trial, Validation


def trials(count: int, status: int | None, mutant: str | None = "a slip", slows: bool = False) -> list[Trial]:
    found = ["changed: mod, it's <b>FLOPs</b> & more: 1 -> 2"]
    return [
        Trial(name=f"{mutant}{slows}{status}{n}", batch=1, mutant=mutant, slows=slows, status=status, findings=found,
              findings_total=9, slower=slows and status == 1, speed={"mod speed.train_step_over_dense": 1.0})
        for n in range(count)
    ]  # fmt: skip


def validation(*groups: list[Trial]) -> Validation:
    place = Environment(
        python="3.11", torch="2.13.0", device="cpu", device_name="a CPU", platform="Linux", threads=1, packages={}
    )
    batches = [Batch(created="2026", git_commit="abc1234", environment=place)]
    return Validation(command="a command", side_by_side=2, batches=batches,
                      trials=[trial for group in groups for trial in group])  # fmt: skip


def outcomes(*groups: list[Trial]) -> list[str]:
    return [goal.outcome for goal in goals(validation(*groups))]


def slow(count: int, status: int | None) -> list[Trial]:
    return trials(count, status, slows=True)


def reruns(count: int, status: int | None) -> list[Trial]:
    return trials(count, status, mutant=None)


def test_goals_with_too_few_trials_are_not_yet_met():
    assert outcomes(trials(19, 1), trials(1, 4), slow(9, 1), slow(1, 0), reruns(99, 0), reruns(1, 1)) == ["met"] * 3
    assert outcomes(trials(5, 1), slow(2, 1), reruns(3, 0)) == ["not yet"] * 3
    assert not all_met(validation(trials(5, 1), slow(2, 1), reruns(3, 0)))
    assert outcomes() == ["not yet"] * 3


def test_goals_that_cannot_be_met_any_more_are_missed():
    assert outcomes(trials(3, 1), trials(1, 0), slow(2, 0), reruns(2, 1)) == ["missed"] * 3


def test_goals_count_a_failed_study_against_every_target():
    whole = trials(19, 1), slow(8, 1), reruns(98, 0)
    assert outcomes(*whole, trials(1, None), slow(2, None), reruns(2, None)) == ["missed"] * 3


def test_page_names_failed_studies_and_the_worst_findings(tmp_path: Path):
    page = write_validation(validation(trials(1, None), trials(1, 1), slow(1, 1), reruns(1, 1)), tmp_path)
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "| study failed |" in text and "| caught |" in text and "not yet" in text and "at least 9 of 10" in text
    assert "the worst few findings" in text


def test_page_markdown_keeps_arrows_and_apostrophes_but_no_html(tmp_path: Path):
    page = write_validation(validation(trials(1, 1), slow(1, 1), reruns(1, 1)), tmp_path)
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "it's &lt;b>FLOPs&lt;/b> &amp; more: 1 -> 2" in text
    assert "&gt;" not in text and "&#" not in text and "<b>" not in text


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "&lt;script&gt;", "> a quote", "a -> b, it's \"so\"", "<img src=x onerror=y>",
    "[a](b)", "<http://e.example>", "&#60;b&#62;", "**b** `c` ~~d~~ | e",
])  # fmt: skip
def test_markdown_cell_is_read_back_as_the_same_text(text):
    html = MarkdownIt("gfm-like", {"linkify": False}).render(str(markdown_cell(text)))
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert html == f"<p>{plain}</p>\n"
