"""Figures that move together are read as one row: on the dashboard, in a comment."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_histories import history, realistic
from gate_studies import change, write_study
from report_records import make_record

from bench.gate.compare import compare
from bench.gate.dashboard import build
from bench.gate.dashboard.recent_changes import recent_changes
from bench.gate.dashboard.series import all_series
from bench.gate.families import leader_of
from bench.gate.load import read_side
from bench.gate.text import markdown

CI = Path(__file__).parents[2] / "results" / "ci"


@pytest.mark.parametrize(
    ("figure", "leader"),
    [
        ("quality.val_bpb", "quality.val_loss_nats"),
        ("lm_eval.bench_heldout.word_perplexity", "quality.val_loss_nats"),
        ("lm_eval.wikitext.byte_perplexity", "lm_eval.wikitext.bits_per_byte"),
        ("loss_curve.10", "training.final_loss"),
        ("routing.fraction_processed_by_layer.3", "routing.fraction_processed"),
        ("flops.train_total", "training.steps"),
        ("flops.train_torch", "flops.train_per_token"),
        ("lm_eval.bench_copy.acc", "lm_eval.bench_copy.acc"),
        ("speed.train_step_over_dense", "speed.train_step_over_dense"),
    ],
)
def test_leader_of_a_figure(figure: str, leader: str):
    assert leader_of(figure) == leader


def test_leaders_of_the_committed_study_lead_themselves_and_exist():
    figures = {figure for _, figure in read_side(CI).figures}
    leaders = {leader_of(figure) for figure in figures}
    assert all(leader_of(leader) == leader for leader in leaders) and leaders <= figures


def test_one_rise_of_a_loss_is_one_recent_change():
    rows = history(machine="aaaa")
    for number, row in enumerate(rows):
        loss = 2.0 if number < 8 else 2.1
        losses = {
            "quality.val_bpb": loss / 3,
            "lm_eval.bench_heldout.bits_per_byte": loss / 3,
            "quality.val_loss_nats": loss,
        }
        row.figures = {f"mod {name}": [value] for name, value in losses.items()} | {"moe quality.val_loss_nats": [loss]}
    found = {each.series.method: each for each in recent_changes(rows, all_series(rows))}
    assert found["mod"].series.figure == "quality.val_loss_nats" and found["moe"].also == []
    assert {each.figure for each in found["mod"].also} == {"quality.val_bpb", "lm_eval.bench_heldout.bits_per_byte"}


def test_changes_at_different_runs_are_separate_entries():
    rows = history(machine="aaaa")
    for number, row in enumerate(rows):
        row.figures = {"mod quality.val_loss_nats": [2.0 + (number >= 8)], "mod quality.val_bpb": [1.0 + (number >= 5)]}
    assert len(recent_changes(rows, all_series(rows))) == 2


def test_overview_lists_every_figure_once_under_its_leader(tmp_path: Path):
    rows = realistic(6)
    page = build(rows, tmp_path / "dashboard").read_text(encoding="utf-8")
    assert page.count('class="spark"') == len(rows[0].figures)
    assert page.count("more that follow from others</summary>") >= 4


def test_markdown_has_a_row_for_each_family(tmp_path: Path):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)
    change(now, "mod-seed0", quality__val_loss_nats=2.5, quality__val_bpb=3.5)
    text = markdown(compare(read_side(base), read_side(now)))
    assert text.count("| regressed |") == 1
    assert "validation loss, nats/token (and 1 that follows it) |" in text
