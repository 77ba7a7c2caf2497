"""The verdict in other tools' formats, read back by independent parsers or by the other tool's documented checks."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from gate_studies import change, change_ci, change_speed, change_steps, write_study
from junitparser import Error, Failure, JUnitXml
from markdown_it import MarkdownIt
from report_records import make_record

from bench.gate.__main__ import main
from bench.gate.compare import compare
from bench.gate.export import bencher, github_action_benchmark, json_text, junit
from bench.gate.load import read_side, time_and_memory, title
from bench.gate.text import markdown, sparkline

HOSTILE = "<script>alert(1)</script>|`x`\n![i](http://e)@someone www.evil.example \x1b[31m\x00 **b** </table>"


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, Path]:
    record = make_record(name="ci")
    return write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)


@pytest.fixture
def verdict(studies):
    """A regression, an improvement, a vanished and a new figure, a slower step."""
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5, routing__predictor_accuracy=None)
    change(studies[1], "dense-seed0", quality__val_loss_nats=1.5)
    change_steps(studies[1], "dense-seed0", "\n50,0.120000", "\n50,0.120001")
    change(studies[0], "dense-seed0", memory=None)
    change_speed(studies[1], "mod", 1.2)
    return compare(*(read_side(folder) for folder in studies))


def named(folder: Path, name: str) -> None:
    """Give the method mod another name."""
    change(folder, "mod-seed0", method=name)
    content = json.loads((folder / "ci.json").read_text(encoding="utf-8"))
    for part in ("runs", "speed"):
        content[part][name] = content[part].pop("mod")
    (folder / "ci.json").write_text(json.dumps(content), encoding="utf-8")


def test_json_holds_every_finding(verdict):
    content = json.loads(json_text(verdict))
    assert (content["verdict"], content["status"]) == ("regressed", 1)
    assert [(f["kind"], f["method"], f["figure"]) for f in content["findings"]] == [
        (f.kind, f.method, f.figure) for f in verdict.findings
    ]
    assert {f["kind"] for f in content["findings"]} == {"regressed", "improved", "vanished", "new"}


def test_junit_is_read_by_a_junit_parser(verdict):
    suites = JUnitXml.fromstring(junit(verdict).encode())
    cases = {(suite.name, case.name): case.result for suite in suites for case in suite}
    failed = {key for key, result in cases.items() if any(isinstance(each, Failure) for each in result)}
    assert failed == {(f.method, f.words) for f in verdict.findings if f.fails}
    assert len(cases) == len({*verdict.baseline.figures, *verdict.current.figures})
    for suite in suites:
        counted = (suite.tests, suite.failures, suite.errors, suite.skipped)
        suite.update_statistics()
        assert counted == (suite.tests, suite.failures, suite.errors, suite.skipped)


# Jenkins' junit-10.xsd, of its xunit plugin: an element's children, its attributes, and those that it must have.
JUNIT_10 = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package",
         "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
    ),
    "testcase": (
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError", "system-out",
         "system-err"},
        {"name", "time", "classname", "group"},
        {"name"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
}  # fmt: skip


def test_junit_follows_the_schema_of_jenkins(studies, verdict):
    change(studies[1], "mod-seed0", causality__passed=False)
    broken = compare(*(read_side(folder) for folder in studies))
    seen = set()
    for each in (verdict, broken):
        for element in ElementTree.fromstring(junit(each)).iter():
            children, attributes, needed = JUNIT_10[element.tag]
            assert {child.tag for child in element} <= children
            assert needed <= set(element.keys()) <= attributes
            seen.add(element.tag)
    assert seen == set(JUNIT_10)


def test_junit_skips_figures_not_judged_with_the_reason(tmp_path):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record, place="another CPU")
    suites = JUnitXml.fromstring(junit(compare(read_side(base), read_side(now))).encode())
    skipped = {case.name: case.result[0].message for suite in suites for case in suite if case.result}
    assert {"peak memory of a training step", "training step time relative to dense"} <= set(skipped)
    assert all("another machine" in reason for reason in skipped.values())


def test_junit_of_broken_records_has_errors(studies):
    change(studies[1], "mod-seed0", causality__passed=False)
    broken = compare(*(read_side(folder) for folder in studies))
    suites = JUnitXml.fromstring(junit(broken).encode())
    errors = [case for suite in suites for case in suite if any(isinstance(each, Error) for each in case.result)]
    assert len(errors) == len(broken.broken) == 1


# Bencher's own schema of its metric format, https://bencher.dev/bmf.json, and the lengths that its reference allows.
BMF_METRIC = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
    "required": ["value"],
}
BMF = {"type": "object", "patternProperties": {".+": {"type": "object", "patternProperties": {".+": BMF_METRIC}}}}
BMF_BENCHMARK_NAME, BMF_MEASURE_NAME = 1024, 64


def test_bencher_follows_its_own_schema(verdict):
    content = json.loads(bencher(verdict))
    jsonschema.validate(content, BMF, cls=jsonschema.Draft7Validator)
    for benchmark, measures in content.items():
        assert 0 < len(benchmark) <= BMF_BENCHMARK_NAME
        assert measures and all(0 < len(measure) <= BMF_MEASURE_NAME for measure in measures)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"mod": {"loss": {"lower_value": 1.0}}}, BMF, cls=jsonschema.Draft7Validator)


def test_bencher_accepts_every_name_of_the_committed_baseline():
    side = read_side(Path(__file__).parents[2] / "results" / "ci")
    assert all(len(name) <= BMF_MEASURE_NAME for _, name in side.figures)


def test_bencher_has_a_benchmark_per_method_with_bounds(verdict):
    content = json.loads(bencher(verdict))
    assert set(content) == {"dense", "mod"}
    for measures in content.values():
        for metric in measures.values():
            assert set(metric) <= {"value", "lower_value", "upper_value"}
            assert metric.get("lower_value", metric["value"]) <= metric["value"]
            assert metric["value"] <= metric.get("upper_value", metric["value"])
    assert "upper_value" in content["mod"]["speed.train_step_over_dense"]


def test_github_action_benchmark_has_a_file_per_direction(verdict):
    files = {name: json.loads(text) for name, text in github_action_benchmark(verdict).items()}
    assert set(files) == {"customSmallerIsBetter.json", "customBiggerIsBetter.json"}
    for entries in files.values():  # what the tool itself checks of such a file, and that names are its keys
        assert entries and len({entry["name"] for entry in entries}) == len(entries)
        for entry in entries:
            assert isinstance(entry["name"], str) and isinstance(entry["unit"], str)
            assert isinstance(entry["value"], int | float) and not isinstance(entry["value"], bool)
            assert set(entry) <= {"name", "unit", "value", "range", "extra"}
    units = {entry["extra"]: entry["unit"] for entries in files.values() for entry in entries}
    assert units["flops.forward_per_token"] == "FLOPs/token" and units["flops.forward_torch"] == "FLOPs"
    assert units["flops.moved_bytes_per_token"] == "bytes/token" and units["memory.peak_bytes"] == "bytes"


def test_github_action_benchmark_has_stable_figures_in_both_files(verdict):
    smaller, bigger = (
        {entry["extra"] for entry in json.loads(github_action_benchmark(verdict)[f"custom{way}IsBetter.json"])}
        for way in ("Smaller", "Bigger")
    )
    assert "model.params_total" in smaller & bigger and "loss_curve.10" in smaller & bigger
    assert "quality.val_loss_nats" in smaller - bigger and "lm_eval.bench_copy.acc" in bigger - smaller


def test_markdown_shows_failures_and_folds_the_rest(verdict):
    text = markdown(verdict)
    assert text.startswith("<!-- bench-gate -->\n## bench: ❌ regressed\n")
    above, folded = text.split("<details>")
    assert "| regressed | MoD | validation loss, nats/token | 2 | 2.5 | +25 % |" in above
    assert "| improved | Dense | validation loss" in folded and "| new | Dense |" in folded
    assert "--accept" in above


def test_markdown_begins_with_the_worst_change_and_its_last_runs(verdict):
    key = (verdict.findings[0].method, verdict.findings[0].figure)
    runs = [verdict.baseline.figures.get(key, verdict.baseline.figures["mod", "model.params_total"]).value] * 3
    text = markdown(verdict, {key: [*runs, 2 * runs[0]], ("mod", "quality.val_loss_nats"): [2.0, 2.0, 2.5]})
    worst = verdict.findings[0]
    assert text.split("\n\n")[2].startswith(f"Worst: {title(worst.method)}, {worst.words}: ")
    assert text.split("\n\n")[2].endswith("▁▁▁█")
    row = next(line for line in text.splitlines() if "| MoD | validation loss, nats/token |" in line)
    assert row.endswith("| ▁▁█ |") and "| last runs |" in text


@pytest.mark.parametrize(
    ("values", "line"),
    [([1, 1, 1], "▅▅▅"), ([0, 0], "▅▅"), ([1, 2, 3], "▁▅█"), ([1000, 1000.1], "▄▅"), ([-1, 1], "▁█")],
)
def test_sparkline_is_level_for_noise_far_below_a_percent(values: list[float], line: str):
    assert sparkline(values) == line


def test_markdown_without_findings_is_short(studies):
    text = markdown(compare(*(read_side(folder) for folder in studies)))
    assert "fine" in text and "|" not in text and "--accept" not in text


def test_markdown_shows_a_machine_name_as_it_is(studies):
    for folder in studies:
        place = json.loads((folder / "ci.json").read_text(encoding="utf-8"))["environment"]
        change_ci(folder, environment=place | {"device_name": "Intel(R) Xeon(R) CPU @ 2.20GHz #1"})
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(compare(*map(read_side, studies))))
    assert "CPU @ 2.20GHz #1" in html.replace("\u200b", "")


def test_markdown_of_speed_only_offers_nothing_to_accept(studies):
    change_speed(studies[1], "mod", 1.2)
    text = markdown(compare(*time_and_memory(*map(read_side, studies))))
    assert "## bench, time and memory: ❌ regressed" in text and "--accept" not in text


def test_exports_of_hostile_names_stay_plain_text(studies):
    for folder in studies:
        named(folder, HOSTILE)
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    verdict = compare(*(read_side(folder) for folder in studies))
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(verdict))
    assert html.count("<table>") == 1 and html.count("<tr>") == 2
    for harmful in ("<script", "<img", "<code>x", "<strong>", "@someone", "\x1b", "http://e", "www.e"):
        assert harmful not in html
    suites = JUnitXml.fromstring(junit(verdict).encode())
    assert any("<script>alert(1)</script>" in suite.name for suite in suites)
    for text in (json_text(verdict), bencher(verdict), *github_action_benchmark(verdict).values()):
        assert json.dumps(HOSTILE, ensure_ascii=False)[1:-1] in text


def test_markdown_of_many_findings_fits_and_counts_the_others(studies):
    for folder, value in zip(studies, (1.0, 2.0), strict=True):
        tasks = {f"task_{n}_{'x' * 60}": {"bits_per_byte": value} for n in range(900)}
        change(folder, "mod-seed0", lm_eval=tasks)
    text = markdown(compare(*(read_side(folder) for folder in studies)))
    assert len(text) < 30_000
    shown = text.count("\n| regressed |")
    assert f"… and {900 - shown} more." in text and shown > 100


def test_markdown_of_many_broken_records_fits_too(studies):
    runs = {f"{n}{'&' * 250}": f"run{n}" for n in range(300)}
    change_ci(studies[1], runs=runs)
    text = markdown(compare(*(read_side(folder) for folder in studies)))
    assert len(text) < 30_000 and "… and 290 more." in text


def test_command_writes_every_file(studies, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(folder) for folder in studies]
    for name in ("json", "markdown", "junit", "bencher"):
        words += [f"--{name}", str(out / name)]
    assert main([*words, "--github-action-benchmark", str(out / "gab")]) == 0
    assert {path.name for path in out.rglob("*") if path.is_file()} == {
        "json", "markdown", "junit", "bencher", "customSmallerIsBetter.json", "customBiggerIsBetter.json",
    }  # fmt: skip
