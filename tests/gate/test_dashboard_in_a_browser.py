"""The dashboard in a real browser, Chromium."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_histories import history, realistic
from playwright.sync_api import Browser, Page, expect

from bench.gate.dashboard import build
from bench.gate.history import Row

HOSTILE = "<script>document.title='harmed'</script>\"'&../../x</script><img src=x onerror=\"document.title='harmed'\">"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A desktop page; a script that throws, a missing file or a request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("requestfailed", lambda request: faults.append(request.url))
    opened.on("request", lambda request: request.url.startswith("file:") or faults.append(request.url))
    yield opened
    context.close()
    assert not faults


def charts(folder: Path, rows=None) -> str:
    return build(rows or history(), folder / "dashboard").with_name("charts.html").as_uri()


# The y pixels of the first chart's value line, as uPlot has drawn it.
HEIGHTS = """() => {
    const plot = [...charts.values()].find((chart) => chart.plot).plot;
    const line = plot.series.findIndex((each) => each.width > 0 && each.machine !== undefined);
    return plot.data[line].map((value) => plot.valToPos(value, "y"));
}"""
# The number of bands of all charts, and the kind and the number of points of each line.
BANDS = "() => [...charts.values()].reduce((sum, chart) => sum + (chart.plot?.bands.length ?? 0), 0)"
LINES = """() => [...charts.values()].filter((chart) => chart.plot && chart.figure.isConnected).flatMap(({ plot }) =>
    plot.series.map((each, place) => [each, plot.data[place].filter((value) => value !== null).length])
        .filter(([each]) => each.machine !== undefined && each.width > 0)
        .map(([each, points]) => [each.class ?? "", points]))"""


def heights(page: Page) -> list[float]:
    expect(page.locator(".readout").first).to_contain_text("commit")
    return page.evaluate(HEIGHTS)


def lines(page: Page, kind: str = "") -> list[int]:
    """The number of points of each line of a kind: "" of values, "faint" of many noisy values, "level" their median."""
    expect(page.locator(".readout").first).to_contain_text("commit")
    return [points for own, points in page.evaluate(LINES) if own == kind]


def test_charts_follow_the_address(page: Page, tmp_path: Path):
    address = charts(tmp_path)
    page.goto(address)
    expect(page.locator("figure.chart")).to_have_count(3)
    page.goto(f"{address}#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    expect(page.locator("figure.chart")).to_have_count(1)
    expect(page.locator("#count")).to_have_text("1 of 3 charts")
    expect(page.locator(".step-label")).to_have_text("+0.50 %")
    expect(page.locator(".readout")).to_have_text(
        "2.01 (1.96 to 2.06), 2026-11-11 00:00, commit c0ffee10, CPU A, fine, the run"
    )
    expect(page.locator(".readout a")).to_have_attribute("href", "https://ci.example/10")
    page.goto(f"{address}#method=nobody")
    expect(page.locator("#count")).to_have_text("No chart matches these filters.")


def test_filters_are_kept_in_the_address_and_on_reload(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path))
    page.get_by_label("Figure").select_option(label="validation loss, nats/token")
    page.get_by_label("MoD", exact=True).check()
    page.get_by_label("Machine").select_option("bbbb")
    expect(page.locator("figure.chart")).to_have_count(1)
    for part in ("figure=quality.val_loss_nats", "method=mod", "machine=bbbb"):
        assert part in page.url
    page.reload()
    expect(page.get_by_label("MoD", exact=True)).to_be_checked()
    expect(page.get_by_label("Machine")).to_have_value("bbbb")
    expect(page.locator(".readout")).to_contain_text("CPU B")
    page.go_back()
    expect(page.get_by_label("Machine")).to_have_value("")


def test_points_are_read_by_mouse_and_by_keyboard(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    chart = page.locator(".chart .plot").first
    readout = page.locator(".readout")
    expect(readout).to_contain_text("c0ffee10")
    chart.hover(position={"x": 64, "y": 90})
    expect(readout).to_contain_text("c0ffee00")
    chart.focus()
    for key, number in (("ArrowRight", "02"), ("End", "10"), ("ArrowLeft", "08"), ("Home", "00")):
        page.keyboard.press(key)
        expect(readout).to_contain_text(f"c0ffee{number}")


def test_a_tap_reads_a_point(browser: Browser, tmp_path: Path):
    phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    phone.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    expect(phone.locator(".readout")).to_contain_text("c0ffee10")
    phone.locator(".chart .plot").tap(position={"x": 64, "y": 90})
    expect(phone.locator(".readout")).to_contain_text("c0ffee00")
    phone.close()


def test_a_chart_is_redrawn_in_the_colours_of_the_chosen_theme(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path))
    expect(page.locator(".readout").first).to_contain_text("commit")
    stroke = "[...charts.values()][0].plot?.axes[0].stroke()"
    light = page.evaluate(stroke)
    page.evaluate("drawn = [...charts.values()][0].plot")
    page.get_by_role("button", name="change to the dark theme").click()
    page.wait_for_function("[...charts.values()][0].plot !== drawn")
    assert page.evaluate(stroke) != light


def test_the_whole_site_is_reached_by_keyboard(page: Page, tmp_path: Path):
    page.goto(build(history(), tmp_path / "dashboard").as_uri())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("link", name="Charts").focus()
    page.keyboard.press("Enter")
    expect(page.locator("figure.chart")).to_have_count(3)


def test_axis_shows_a_change_of_half_a_percent(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    drawn = heights(page)
    assert max(drawn) - min(drawn) > 40


def with_outlier(run: int, value: float, machine: str = "aaaa") -> list[Row]:
    """A history of one machine whose mod loss is `value` at one run."""
    rows = history(machine=machine)
    rows[run].figures["mod quality.val_loss_nats"] = [value]
    return rows


@pytest.mark.parametrize(("value", "edge"), [(9.0, "min"), (0.1, "max")])
def test_axis_ignores_a_single_outlier(page: Page, tmp_path: Path, value: float, edge: str):
    page.goto(f"{charts(tmp_path, with_outlier(3, value))}#figure=quality.val_loss_nats&method=mod")
    drawn = heights(page)
    assert drawn[0] - drawn[-1] > 40  # from 2.00 to 2.01
    assert drawn[3] == {"min": min, "max": max}[edge](drawn)
    box, mark = page.locator(".u-over").first.bounding_box(), page.locator(".off").bounding_box()
    assert box is not None and 0 <= drawn[3] <= box["height"]
    assert mark is not None and abs(mark["y"] + mark["height"] / 2 - box["y"] - drawn[3]) < 2
    expect(page.locator(".chart .off")).to_have_count(1)
    expect(page.locator(".key")).to_have_text("off the scale: 1 run")


def test_a_run_off_the_scale_can_be_read(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path, with_outlier(3, 9.0))}#figure=quality.val_loss_nats&method=mod")
    readout, chart = page.locator(".readout"), page.locator(".chart .plot").first
    expect(readout).to_contain_text("2.01 (1.96 to 2.06), 2026-11-12")
    chart.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(readout).to_have_text("9, off the scale, 2026-11-04 00:00, commit c0ffee03, CPU B, fine, the run")
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("2 (1.95 to 2.05), 2026-11-05")
    at = page.locator(".chart .off").bounding_box()
    assert at is not None
    page.mouse.click(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    expect(readout).to_contain_text("9, off the scale")


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 11 + [1.0],  # no size to be far from
        [2.0] * 6 + [3.0] * 6,
        [2.0] * 10 + [3.0] * 2,
        [2.0, 3.0] * 6,
        [2.0, 9.0],
        [100 + 7 * (number * 5 % 12) for number in range(12)],  # noise
        [2.0] * 6 + [2.03] + [2.0] * 5,  # too near to hide anything
    ],
)
def test_axis_includes_all_levels_and_noise(page: Page, tmp_path: Path, values: list[float]):
    rows = history(len(values), machine="aaaa")
    for row, value in zip(rows, values, strict=True):
        row.figures = {"mod quality.val_loss_nats": [value]}
    page.goto(charts(tmp_path, rows))
    expect(page.locator(".readout")).to_contain_text("commit")
    expect(page.locator(".off, .key")).to_have_count(0)


def test_axis_includes_a_noisy_machine_beside_a_quiet_one(page: Page, tmp_path: Path):
    rows = history(60, created="2026-11-01T00:00:00+00:00")
    for number, row in enumerate(rows):
        noise = 0.0 if row.machine == "aaaa" else 0.01 * (number * 7 % 30 - 15)
        row.figures = {"mod quality.val_loss_nats": [2.0 + noise]}
    page.goto(charts(tmp_path, rows))
    expect(page.locator(".key li")).to_have_text(["CPU A", "CPU B"])


def test_change_points_of_ten_percent_are_whole_percents(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path))
    written = page.evaluate("[-0.5, 9.94, 9.96, 12.4, -100, 250, 1234.5].map(signed)")
    assert written == ["−0.50", "+9.9", "+10", "+12", "−100", "+250", "+1,235"]


def test_lines_never_join_two_machines(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod")
    assert lines(page) == [6, 6]


def test_recent_changes_come_first_and_can_be_filtered(page: Page, tmp_path: Path):
    address = charts(tmp_path)
    page.goto(address)
    expect(page.locator("#count")).to_have_text("3 charts")
    expect(page.locator(".chart h2").first).to_have_text("MoD: validation loss, nats/token")
    page.get_by_label("Recent change points only").check()
    expect(page.locator("#count")).to_have_text("1 of 3 charts")
    assert page.url == f"{address}#changed=1"
    page.reload()
    expect(page.get_by_label("Recent change points only")).to_be_checked()


def test_search_is_kept_in_the_address_and_is_one_step_back(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path))
    page.get_by_label("MoD", exact=True).check()
    page.get_by_label("Search").press_sequentially("Validation LOSS")
    expect(page.locator("#count")).to_have_text("1 of 3 charts")
    assert "search=Validation+LOSS" in page.url
    page.reload()
    expect(page.get_by_label("Search")).to_have_value("Validation LOSS")
    page.get_by_label("Search").fill("params_total")  # the name as recorded
    expect(page.locator(".chart h2")).to_have_text("MoD: total parameters")
    page.go_back()
    expect(page.locator("#count")).to_have_text("3 charts")


def test_interval_wider_than_the_chart_is_no_band(page: Page, tmp_path: Path):
    one = "#figure=quality.val_loss_nats&method=mod&machine=aaaa"
    page.goto(charts(tmp_path) + one)
    expect(page.locator(".whisker")).to_have_count(1)
    assert page.evaluate(BANDS) == 0
    at = page.locator(".whisker").get_attribute("style")
    page.locator(".chart .plot").press("Home")
    expect(page.locator(".readout")).to_contain_text("2 (1.95 to 2.05)")
    assert page.locator(".whisker").get_attribute("style") != at
    narrow = history()
    for row in narrow:
        value = row.figures["mod quality.val_loss_nats"][0]
        row.figures["mod quality.val_loss_nats"] = [value, value - 0.002, value + 0.002]
    page.goto(charts(tmp_path / "narrow", narrow) + one)
    expect(page.locator(".whisker")).to_have_count(1)
    assert page.evaluate(BANDS) == 1


def test_a_resize_keeps_the_focus_and_the_point_being_read(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    chart = page.locator(".chart .plot").first
    chart.press("Home")
    expect(page.locator(".readout")).to_contain_text("c0ffee00")
    page.set_viewport_size({"width": 420, "height": 900})
    expect(page.locator(".chart .uplot")).to_have_css("width", re.compile(r"3\d\dpx"))
    expect(chart).to_be_focused()
    expect(page.locator(".readout")).to_contain_text("c0ffee00")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).to_contain_text("c0ffee02")


@pytest.mark.parametrize("name", ["Machine", "Figure"])
def test_unknown_filters_in_the_address_are_shown(page: Page, tmp_path: Path, name: str):
    address = charts(tmp_path)
    page.goto(f"{address}#{name.lower()}=gone&method=nobody")
    expect(page.locator("#count")).to_have_text("No chart matches these filters.")
    expect(page.get_by_label(name).locator("option:checked")).to_have_text("unknown: gone")
    expect(page.get_by_label("unknown: nobody")).to_be_checked()
    page.goto(f"{address}#")
    expect(page.locator("#count")).to_have_text("3 charts")
    expect(page.locator(".unknown")).to_have_count(0)


def test_studies_have_charts_of_their_own(page: Page, tmp_path: Path):
    rows = history()
    for row in rows[6:]:
        row.study = "nightly"
    page.goto(f"{charts(tmp_path, rows)}#figure=model.params_total")
    expect(page.locator(".chart h2")).to_have_text(["ci MoD: total parameters", "nightly MoD: total parameters"])
    expect(page.locator(".readout").first).to_contain_text("c0ffee05")


def test_long_history_loads_and_filters(page: Page, tmp_path: Path):
    address = charts(tmp_path, realistic(5000))
    page.goto(address)
    page.locator(".readout a").first.wait_for()
    page.get_by_label("Search").fill("moe training step time relative to dense")
    plot = page.locator(".chart .plot").first
    expect(plot).to_have_attribute("aria-label", re.compile("relative to dense"))
    assert len(lines(page, "level")) == len(lines(page, "faint")) == 3  # a machine each
    assert page.evaluate(BANDS) == 0
    expect(plot).to_have_attribute("aria-label", re.compile(r": 500 runs"))
    page.locator("#last").select_option("all")
    expect(plot).to_have_attribute("aria-label", re.compile(r": 5000 runs"))
    assert page.url.endswith("&last=all")
    expect(page.locator(".step-label").first).to_contain_text(re.compile(r"\+[78]"))
    page.locator("#last").select_option("100")
    expect(plot).to_have_attribute("aria-label", re.compile(r": 100 runs"))
    assert lines(page, "level") == []


def test_findings_link_to_their_charts(page: Page, tmp_path: Path):
    rows = history(verdict="regressed", findings=["mod quality.val_loss_nats: regressed", "moe everything: vanished"])
    page.goto(build(rows, tmp_path / "dashboard").as_uri())
    expect(page.locator(".card").first).to_contain_text("Compared with its baseline")
    expect(page.locator(".card li a")).to_have_count(2)  # of four findings: nothing is drawn of moe
    page.locator(".card li a").first.click()
    expect(page.locator(".chart h2")).to_have_text("MoD: validation loss, nats/token")
    expect(page.get_by_label("Machine")).to_have_value("bbbb")


@pytest.mark.parametrize("name", ["index.html", "charts.html"])
def test_hostile_names_do_nothing(page: Page, tmp_path: Path, name: str):
    rows = history(commit=HOSTILE, machine_name=HOSTILE, link="javascript:document.title='harmed'", findings=[HOSTILE])
    for row in rows:
        row.figures = {f"{HOSTILE} {HOSTILE.replace(' ', '_')}": [1.0], **row.figures}
    site = build(rows, tmp_path / "dashboard").parent
    page.goto((site / name).as_uri())
    page.wait_for_load_state("networkidle")
    expect(page.locator("body")).to_contain_text("../../x")
    if name == "charts.html":
        expect(page.locator("figure.chart")).to_have_count(4)
        expect(page.locator(".readout").first).to_contain_text("commit")
    assert "harmed" not in page.title()
    assert page.locator("main img, a[href^='javascript:']").count() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"dashboard", "assets", "index.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "charts.html"])
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, tmp_path: Path, name: str, scheme: str):
    site = build(history(), tmp_path / "dashboard").parent
    phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    phone.goto((site / name).as_uri())
    if name == "charts.html":
        expect(phone.locator(".readout").first).to_contain_text("commit")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_every_table_is_whole_on_a_phone(browser: Browser, tmp_path: Path):
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(build(realistic(40), tmp_path / "dashboard").as_uri())
    phone.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    cells = phone.locator(".stacks tbody > tr > *")
    expect(cells.first).to_be_visible()
    edges = cells.evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")
    assert max(edges) < 390
    tables = phone.locator(".scroll", has=phone.locator("table"))
    assert tables.count() > 2  # what moved, and the figures of several groups
    assert all(tables.evaluate_all("all => all.map(each => each.scrollWidth <= each.clientWidth)"))
    named = phone.locator(".figures td").first
    assert named.evaluate("each => getComputedStyle(each, '::before').content").strip('"') == "Dense"
    phone.close()


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, tmp_path: Path):
    address = build(history(), tmp_path / "dashboard").as_uri()
    page = browser.new_page(color_scheme="dark")
    page.goto(address)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="change to the light theme").click()
    light = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == light
    expect(page.get_by_role("button", name="change to the dark theme")).to_have_text("Dark")
    page.close()


def test_dragging_zooms_and_a_double_click_or_a_button_shows_all(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path)}#figure=quality.val_loss_nats&method=mod")
    assert lines(page) == [6, 6]
    plot = page.locator(".chart .plot").first
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    for undo in (lambda: page.locator(".u-over").first.dblclick(), page.get_by_role("button", name="All runs").click):
        page.mouse.move(box["x"] + box["width"] * 0.52, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 70, steps=4)
        page.mouse.up()
        expect(plot).to_have_attribute("aria-label", re.compile(": 6 runs"))
        undo()
        expect(plot).to_have_attribute("aria-label", re.compile(": 12 runs"))


def test_keys_zoom_around_the_run_being_read(page: Page, tmp_path: Path):
    page.goto(f"{charts(tmp_path, history(40, created='2026-11-01T00:00:00+00:00'))}#figure=model.params_total")
    plot = page.locator(".chart .plot")
    for key, runs in (("Home", 40), ("+", 6), ("-", 13), ("-", 40), ("+", 6), ("0", 40)):
        plot.press(key)
        expect(plot).to_have_attribute("aria-label", re.compile(f": {runs} runs"))
        expect(page.locator(".readout")).to_contain_text("c0ffee00")


def test_chart_is_saved_as_csv_without_formulas(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path, history(machine_name='=1+1,"A"')) + "#figure=quality.val_loss_nats&method=mod")
    expect(page.locator(".readout")).to_contain_text("commit")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and download.value.suggested_filename == "mod_quality.val_loss_nats.csv"
    last = {
        "value": "2.01",
        "low": "1.96",
        "high": "2.06",
        "commit": "c0ffee11",
        "machine": '\'=1+1,"A" (bbbb)',
        "method": "mod",
    }
    assert last.items() <= rows[-1].items()


def test_a_run_shows_its_message_note_and_comparison(page: Page, tmp_path: Path):
    rows = history(subject="Rename the <b>router</b>")
    for row in rows:
        row.link = f"https://github.com/o/r/actions/runs/{row.id[3:]}"
    site = build(rows, tmp_path / "dashboard", {"c0ffee10": "new runner <i>image</i>"}).parent
    page.goto((site / "charts.html").as_uri() + "#figure=quality.val_loss_nats&method=mod&machine=aaaa")
    readout = page.locator(".readout")
    expect(readout).to_contain_text("commit c0ffee10 “Rename the <b>router</b>”, CPU A, fine")
    expect(readout).to_contain_text("⚑ new runner <i>image</i>")
    expect(page.locator(".flag")).to_have_count(1)
    addresses = [link.get_attribute("href") for link in readout.locator("a").all()]
    assert addresses == [
        "https://github.com/o/r/commit/c0ffee10",
        "https://github.com/o/r/actions/runs/10",
        "https://github.com/o/r/compare/c0ffee08...c0ffee10",
    ]
    page.goto((site / "index.html").as_uri())
    compared = page.get_by_role("link", name="compare")
    expect(compared).to_have_attribute("href", "https://github.com/o/r/compare/c0ffee06...c0ffee08")


def test_page_of_many_charts_is_short_and_draws_what_is_looked_at(page: Page, tmp_path: Path):
    page.goto(charts(tmp_path, realistic(9)))
    expect(page.locator(".readout a").first).to_be_visible()
    assert page.locator("figure.chart").count() == 24 and page.locator(".uplot").count() < 12
    assert page.evaluate("document.documentElement.scrollHeight") < 8000
    page.get_by_role("button", name="Show 24 more").click()
    expect(page.locator("figure.chart")).to_have_count(48)
    page.locator("figure.chart").last.scroll_into_view_if_needed()
    expect(page.locator("figure.chart").last.locator(".uplot")).to_have_count(1)


def test_figures_that_follow_are_listed_under_their_chart(page: Page, tmp_path: Path):
    address = charts(tmp_path, realistic(9))
    page.goto(f"{address}#method=mod")
    loss = page.locator("figure.chart").filter(has_text="MoD: validation loss, nats/token")
    loss.get_by_text("figures follow from it").click()
    loss.get_by_role("link", name="validation loss, bits/byte").click()
    expect(page.locator(".chart h2")).to_have_text("MoD: validation loss, bits/byte")
