"""What an isoFLOP report says first: its finding, each method at each budget, the claims, and the curves to explore."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from isoflop_studies import BUDGETS, make_study
from playwright.sync_api import Browser, expect
from report_records import change_records

from bench.formats import decimal, signed
from bench.isoflop.analysis.claims import Claim
from bench.isoflop.analysis.curves import curves
from bench.isoflop.analysis.evidence import if_true
from bench.isoflop.analysis.results import read_study
from bench.isoflop.analysis.verdicts import Against
from bench.isoflop.pages import laws
from bench.isoflop.pages.answer import finding
from bench.isoflop.pages.claims import claim_rows
from bench.isoflop.pages.explore import explore_data
from bench.isoflop.pages.hero import hero_figures
from bench.isoflop.pages.page import write_isoflop
from bench.isoflop.pages.sizes import SIZES
from bench.stats.interval import Interval
from bench.stats.verdict import Mark, Verdict


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer resamples of the laws, which are not what is asked about."""
    monkeypatch.setattr(laws, "_BOOTSTRAPS", 100)


def against(method: str, verdict: Verdict, value: float = 0.0) -> Against:
    return Against(method, Interval(value), 1.0, [1e12], verdict)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([against("mode/staged", Verdict.BETTER), against("moe", Verdict.BETTER), against("mod", Verdict.INCONCLUSIVE)],
         "At equal training FLOPs, MoDE (staged) and MoE reach lower loss than dense; MoD is inconclusive"),
        ([against("moe", Verdict.EQUIVALENT), against("mod", Verdict.WORSE)],
         "At equal training FLOPs, MoD reaches higher loss than dense; MoE is equivalent to dense"),
        ([], "No method was compared with dense on several seeds at equal training FLOPs"),
    ],
)  # fmt: skip
def test_finding_is_one_plain_sentence(found, sentence):
    assert finding(found) == sentence


def test_grid_shows_the_differences_of_the_tables(tmp_path: Path):
    page = write_isoflop(make_study(tmp_path / "made", better=1.1, noise=0.002), tmp_path / "reports")
    seeds = pd.read_csv(page.parent / "tables" / "seeds.csv").query("method == 'mod'")
    words = re.findall(r'<span class="words">(.*?)</span>', page.read_text(encoding="utf-8"))
    assert len(words) == len(seeds) == len(BUDGETS)
    for row, shown in zip(seeds.itertuples(), words, strict=True):
        ends = f"({signed(row.minus_dense_low)} to {signed(row.minus_dense_high)})"
        sign = "▼" if row.minus_dense_high < 0 else "▲" if row.minus_dense_low > 0 else "○"
        assert shown == f"{sign} {signed(row.minus_dense)} {ends}"


def test_claims_show_the_evidence_of_their_table(tmp_path: Path):
    page = write_isoflop(make_study(tmp_path / "made", better=1.1, noise=0.002), tmp_path / "reports")
    table = pd.read_csv(page.parent / "tables" / "claims.csv")
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'<div class="evidence">.*?<span>([^<]+)</span></div>', text)
    assert shown == list(table["evidence"]) and len(shown) >= 6
    row = table[table["claim"].str.startswith("Better loss")].iloc[0]
    for number in (row.value, row.value_low, row.value_high):
        assert signed(number) in row.evidence


def test_claim_with_much_evidence_shows_the_lowest_and_highest():
    evidence = [if_true(f"{value:g}", True, Interval(value, value - 1, value + 1), 0.5) for value in (3, 1, 9, 2, 5)]
    claim = Claim("It holds.", "a paper", "all", "5 of 5", Mark.SUPPORTED, "none", evidence)
    (row,) = claim_rows([claim])
    assert [each.text for each, _ in row.shown] == ["1", "9"] and row.more == 3 and row.lines == [0.5]


def test_claim_without_an_interval_is_shown_in_words():
    claim = Claim(
        "It holds.", "a paper", "all", "-", Mark.INCONCLUSIVE, "none", [if_true("at no size", None, None, 0.6)]
    )
    (row,) = claim_rows([claim])
    assert [(each.text, mark) for each, mark in row.shown] == [("at no size", None)]


def falling(folder: Path) -> Path:
    """MoD's loss at the first budget falls with size, so its best shape is the largest and its fit has no optimum."""

    def to(record):
        if record.config["train"]["budget_flops"] == BUDGETS[0]:
            record.quality.val_loss_nats = 3.0 - 0.1 * record.model.n_layers

    change_records(folder, "mod-*", to)
    return folder


def test_rejected_fit_is_hollow_dashed_and_has_an_arrow(tmp_path: Path):
    plain = make_study(tmp_path / "plain", better=1.0, sizes=9)
    odd = falling(make_study(tmp_path / "odd", better=1.0, sizes=9))
    for before, after in zip(*(hero_figures(read_study(each)) for each in (plain, odd)), strict=True):
        for mark in ("stroke-dasharray: 3.7", "fill: #ffffff; stroke: #d55e00"):
            assert mark not in before.svg and mark in after.svg
        assert after.svg.count('id="patch_') == before.svg.count('id="patch_') + 1  # the arrow


def test_explored_data_has_every_run_and_only_valid_optima(tmp_path: Path):
    results = read_study(falling(make_study(tmp_path / "made", sizes=7)))
    data = json.loads(json.dumps(explore_data(results), allow_nan=False))
    sized = results.sized
    assert sorted(run[5] for run in data["runs"]) == pytest.approx(sorted(sized["loss"]), rel=1e-6)
    assert {tuple(run[2:5]) for run in data["runs"]} == set(
        zip(sized["n_layers"], sized["d_model"], sized["seed"], strict=True)
    )
    for size, fitted in zip(SIZES, data["curves"], strict=True):
        found = curves(results, size)
        for method, budget, valid, xs, ys, best in fitted:
            curve = found[results.methods[method], results.budgets[budget]]
            assert bool(valid) == curve.inside == bool(best)
            z = np.log(xs) - curve.budget.centre
            assert ys == pytest.approx(np.polynomial.polynomial.polyval(z, curve.coefficients), rel=1e-3)


def test_curves_are_read_by_keyboard_and_chosen_by_budget(tmp_path: Path, browser: Browser):
    folder = make_study(tmp_path / "made")
    url = write_isoflop(folder, tmp_path / "reports").as_uri()
    runs = read_study(folder).sized
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    chart, readout = page.locator("#isoflop-chart .chart"), page.locator("#isoflop-chart .readout")
    expect(chart.locator("g circle:not(.optimum)")).to_have_count(len(runs))
    page.get_by_role("slider").fill("0")
    expect(chart.locator("g circle:not(.optimum)")).to_have_count(len(runs[runs["budget"] == BUDGETS[0]]))
    page.get_by_role("button", name="MoD", exact=True).click()
    own = runs[(runs["budget"] == BUDGETS[0]) & (runs["method"] == "dense")].sort_values("forward_flops")
    expect(chart.locator("g circle:not(.optimum)")).to_have_count(len(own))
    chart.press("ArrowRight")
    expect(readout).to_contain_text(
        f"Dense, 2 × 16, seed 0, 1e12 FLOPs: loss {decimal(own['loss'].iloc[0])} nats/token"
    )
    chart.press("ArrowLeft")
    expect(readout).to_contain_text("Dense, 6 × 16, seed 0")
    page.get_by_role("combobox").select_option("total parameters")
    expect(chart.locator("svg > text").last).to_have_text("total parameters")
    context.close()
    assert not faults


def test_page_without_scripts_keeps_its_figure_and_says_so(tmp_path: Path, browser: Browser):
    url = write_isoflop(make_study(tmp_path / "made"), tmp_path / "reports").as_uri()
    for width, shown in ((1280, "wide"), (390, "narrow")):
        context = browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=False)
        page = context.new_page()
        page.goto(url)
        expect(page.locator(f".hero .{shown}")).to_be_visible()
        expect(page.locator(".hero [role=img]:visible")).to_have_count(1)
        expect(page.locator("#isoflop-chart")).to_be_hidden()
        expect(page.locator("[data-static=isoflop]")).to_be_visible()
        context.close()
