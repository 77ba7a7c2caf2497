"""What a report folder holds, whatever the names, damaged files and mixtures of runs."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from report_records import change_records, make_record, save

from bench.errors import UserError
from bench.records.record import Causality, CausalRouterStatistics, RoutingStatistics, Text
from bench.report import build, summary_table, verdicts
from bench.report.caveats import caveats
from bench.report.comparison import folder_name
from bench.report.decoding import causal_routers_table
from bench.report.differences import differences
from bench.report.load import read_files, read_results
from bench.report.routing import accuracy_figure, passages, weight_figures


class Resources(HTMLParser):
    """Collects whatever a browser would fetch, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [values["id"]] if "id" in values else []
        links = [values[key] or "" for key in ("src", "href", "xlink:href", "srcset", "data") if key in values]
        self.fetched += [link for link in links if not link.startswith("#")]
        self.fetched += re.findall(r"url\((?!#)[^)]*\)", values.get("style") or "")


def parse(page: Path) -> Resources:
    parser = Resources()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def text_of(page: Path) -> str:
    """What a reader sees, without tags."""
    return re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_report_built_twice_is_self_contained_and_identical(results, tmp_path):
    (page,) = build(results, tmp_path / "a")
    assert page == tmp_path / "a" / "tiny" / "index.html"
    files = contents(page.parent)
    expected = {"index.html", "report.md", "tables/comparison.csv", "tables/runs.csv", "figures/difference.svg"}
    assert expected <= set(files)
    figures = {name[:-4] for name in files if name.startswith("figures/")}
    assert all(name.endswith((".svg", ".csv", "report.md", "index.html", "share.png")) for name in files)
    parsed = parse(page)
    assert all((page.parent / link).exists() for link in parsed.fetched)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "@import" not in page.read_text(encoding="utf-8")
    markdown = files["report.md"].decode()
    assert set(re.findall(r"\]\((figures/[^)]+)\)", markdown)) == {name + ".svg" for name in figures}
    build(results, tmp_path / "a")
    assert contents(page.parent) == files
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"tiny", "assets", "index.html"}


def test_csv_holds_unrounded_figures_and_leaves_absent_ones_empty(results, tmp_path):
    build(results, tmp_path)
    table = pd.read_csv(tmp_path / "tiny" / "tables" / "comparison.csv").set_index("method")
    assert table.loc["MoD", "loss_minus_dense"] == pytest.approx(-0.04)
    assert table.loc["MoD", "quality.val_loss_nats"] == pytest.approx((1.95 + 2.07 + 1.91) / 3)
    assert pd.isna(table.loc["Dense", "loss_minus_dense"])
    assert pd.isna(table.loc["Dense", "speed.train_speedup_realised.median"])


def test_page_shows_absent_figures_as_a_dash_never_zero(tmp_path):
    bare = {"quality": None, "speed": None, "memory": None, "routing": None}
    save(tmp_path / "r", make_record("dense"))
    save(tmp_path / "r", make_record("mod", **bare))
    (page,) = build(tmp_path / "r", tmp_path / "p")
    text = page.read_text(encoding="utf-8")
    for row in ("Validation loss, nats/token", "Peak memory", "Step time"):
        cells = re.search(rf'<th scope="row">{row}</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>', text)
        assert cells and cells[1] != "–" and cells[2] == "–"
    assert "the validation loss was not measured" in text


def test_page_shows_and_marks_a_failed_run(results, tmp_path):
    failed = Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False)
    save(results, make_record("mod", 1, 0.123, causality=failed, status="audit_failed"))
    (page,) = build(results, tmp_path)
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script.*?</script>", text, re.DOTALL)
    assert text.count("0.123") - "".join(scripts).count("0.123") == 1  # in the table of runs, and nowhere else
    assert sum("0.123" in script for script in scripts) == 1 and "runs-data" in next(s for s in scripts if "0.123" in s)
    assert "is shown but its quality is not compared: the causality audit failed" in text
    assert "FAILED in 1 of 3" in text
    assert "n = 2 seeds" in text


def test_hostile_names_are_escaped_and_stay_inside_the_folder(tmp_path):
    evil = '../../<script>alert("x")</script>|`*'
    for method in ("dense", "<img src=x onerror=y>", "m$\\frac{$"):
        record = make_record(method, name=evil, run_id=f"r{len(method)}", comparison_hash="ab12cd")
        save(tmp_path / "results", record.model_copy(update={"command": "</pre><script>1</script>\n```\n# x"}))
    (page,) = build(tmp_path / "results", tmp_path / "reports")
    assert page.parent.parent == tmp_path / "reports"
    assert {path.name for path in tmp_path.iterdir()} == {"results", "reports"}
    parsed = parse(page)
    assert all((page.parent / unquote(link)).exists() for link in parsed.fetched)
    save(tmp_path / "plain", make_record("dense"))
    assert parsed.scripts == parse(build(tmp_path / "plain", tmp_path / "reports")[0]).scripts + 1  # a passage's data
    index = parse(tmp_path / "reports" / "index.html")
    assert all((tmp_path / "reports" / link).exists() for link in index.fetched) and index.scripts == 1
    markdown = (page.parent / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside and "<img" not in outside and "\n# x" not in outside


def test_folder_name_of_any_name_is_plain_and_distinct():
    assert folder_name("tiny-kjv_1.0") == "tiny-kjv_1.0"
    names = ["a/b", "a-b", "a b", "..", ".", "", "/etc", "é" * 300]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", folder) for folder in folders)


def test_groups_with_different_settings_never_share_a_table(results, tmp_path):
    save(results, make_record("mod", 5, 1.111, comparison_hash="decade", run_id="other"))
    (page,) = build(results, tmp_path)
    text = page.read_text(encoding="utf-8")
    top, first, second = text.split('<div class="group" id="')
    assert first.startswith("c0ffee") and second.startswith("decade")
    assert "1.111" not in first and "1.111" in second
    assert "There is nothing to compare" in top
    assert (page.parent / "tables" / "decade" / "comparison.csv").exists()


def test_page_of_two_contracts_heads_each_and_mixes_no_runs(results, tmp_path):
    """Equal seeds under both; `forward_flops` sorts before `train_flops` by its name and its hash, and comes second."""
    for seed, (dense, mod) in enumerate([(3.00, 2.50), (3.10, 2.62), (2.95, 2.46)]):
        for method, loss in (("dense", dense), ("mod", mod)):
            record = make_record(method, seed, loss, contract="forward_flops", comparison_hash="aaaaaa")
            record.run.id += "-forward"
            record.config["contract"] = {"name": "forward_flops"}
            record.model.n_layers = 8 if method == "mod" else 4
            save(results, record)
    change_records(results / "tiny", "*s[012]", lambda record: record.config.update(contract={"name": "train_flops"}))
    (comparison,), _ = read_results(results)
    train, forward = comparison.groups
    assert [group.differs for group in (train, forward)] == [
        "at equal training FLOPs",
        "at equal FLOPs per forward pass",
    ]
    assert [group.settings for group in (train, forward)] == ["", ""]
    assert all(run.record.run.id.endswith("-forward") for run in forward.runs) and len(forward.runs) == 6
    lost = [each[0].loss for each in differences(comparison.groups)]
    assert [loss.value for loss in lost] == [pytest.approx(-0.04), pytest.approx(-0.49)]
    (page,) = build(results, tmp_path)
    top, first, second = page.read_text(encoding="utf-8").split('<div class="group" id="')
    assert top.index("at equal training FLOPs.") < top.index("better than dense at equal FLOPs per forward pass.")
    assert "<h2>Comparison at equal training FLOPs</h2>" in first and "per forward pass" not in first
    assert "<h2>Comparison at equal FLOPs per forward pass</h2>" in second and "MoD 8 × 64" in second
    assert "Training tokens are equal, and training FLOPs within 0.00\u00a0% of dense’s." in second
    markdown = (page.parent / "report.md").read_text(encoding="utf-8")
    assert markdown.index("### Comparison at equal FLOPs per forward pass") < markdown.index("## Comparison with the")
    assert {each.name for each in (page.parent / "figures").glob("*difference.svg")} == {"difference.svg"}
    assert (page.parent / "figures" / "aaaaaa" / "difference.svg").exists()
    printed = verdicts([run.record for run in (*train.runs, *forward.runs)], results)
    assert [line.split(":")[0] for line in printed] == ["MoD", "MoD"]


def test_groups_with_different_texts_never_share_a_table(tmp_path):
    """Equal settings and seeds, but the files that they name were rewritten in between."""
    for text, loss in (("aaaa", 2.0), ("bbbb", 3.0)):
        for method in ("dense", "mod"):
            record = make_record(method, 0, loss, run_id=f"{method}-{text}")
            record.run.corpus_fingerprint = text
            save(tmp_path / "results", record)
    (comparison,), problems = read_results(tmp_path / "results")
    assert not problems
    assert [group.comparison_hash for group in comparison.groups] == ["c0ffee-aaaa", "c0ffee-bbbb"]
    for group, text in zip(comparison.groups, ("aaaa", "bbbb"), strict=True):
        assert [run.record.run.id for run in group.runs] == [f"dense-{text}", f"mod-{text}"]
        assert f"Only runs on the text {text} are shown" in group.notes[0]
    pages = build(tmp_path / "results", tmp_path / "reports")
    assert "c0ffee-bbbb" in pages[0].read_text()


def test_record_without_a_text_joins_the_runs_of_one_text(tmp_path):
    save(tmp_path / "results", make_record("dense", 0, 2.0))
    record = make_record("mod", 0, 2.0)
    record.run.corpus_fingerprint = "aaaa"
    save(tmp_path / "results", record)
    (comparison,), _ = read_results(tmp_path / "results")
    (group,) = comparison.groups
    assert group.comparison_hash == "c0ffee" and len(group.runs) == 2


def test_router_figures_of_noise_are_called_noise_ranks(tmp_path):
    """The histogram is of top-k passes; a Gaussian router ranks by noise, which is no router weight."""
    save(tmp_path / "results", make_record("mod", 0, 2.0))
    noisy = make_record("mod_random", 0, 2.0)
    noisy.config["method"]["depth"]["router"] = "gaussian"
    save(tmp_path / "results", noisy)
    (comparison,), _ = read_results(tmp_path / "results")
    learned, random = weight_figures(comparison.groups[0])
    assert (learned.title, random.title) == ("Router weights, MoD", "Noise ranks, MoD random")
    for drawing in (learned, random):
        assert "by top-k as in training" in drawing.caption and "causal router" not in drawing.caption
    (words,) = passages(comparison.groups[0])
    assert '"ranks":"router weight"' in words and '"ranks":"noise rank"' in words
    page = build(tmp_path / "results", tmp_path / "reports")[0].read_text()
    assert "A noise rank decides what is processed and is not the gate r." in page


def _only_group(results):
    (comparison,), _ = read_results(results)
    (group,) = comparison.groups
    return group


@pytest.mark.parametrize("router", ["predictor", "noise_threshold"])
def test_router_table_explains_a_noise_threshold_if_present(tmp_path, router):
    """Records from before it had a name of its own call it a predictor, and read as they did."""
    seen = CausalRouterStatistics(
        accuracy=0.96, fraction_processed=0.12, fraction_by_position=[0.12], val_loss_nats=2.0, loss_over_topk=0.0
    )
    save(tmp_path, make_record("mod_random", routing=RoutingStatistics(causal_routers={router: seen})))
    table = causal_routers_table(_only_group(tmp_path))
    assert [row[0] for row in table.rows] == [f"MoD random, {router.replace('_', ' ')}"]
    assert ("Noise threshold: " in table.caption) == (router == "noise_threshold")


def test_accuracy_figure_draws_a_running_threshold_alone(tmp_path):
    folder = save(tmp_path, make_record("mod"))
    steps = pd.read_csv(folder / "steps.csv").rename(columns={"predictor_accuracy": "expert_threshold_accuracy"})
    steps.to_csv(folder / "steps.csv", index=False)
    drawing = accuracy_figure(_only_group(tmp_path))
    assert drawing is not None and "for MoD." in drawing.alt


def test_method_with_two_settings_becomes_two_methods(tmp_path):
    for capacity in (0.125, 0.5):
        config = {"method": {"name": "mod", "depth": {"capacity": capacity}}}
        save(tmp_path / "r", make_record("mod", config=config, run_id=f"mod-{capacity}"))
    save(tmp_path / "r", make_record("dense"))
    (page,) = build(tmp_path / "r", tmp_path / "p")
    table = pd.read_csv(page.parent / "tables" / "comparison.csv")
    assert list(table["method"]) == ["Dense", "MoD (depth.capacity=0.125)", "MoD (depth.capacity=0.5)"]


def test_newer_run_of_the_same_seed_replaces_the_older_with_a_note(results, tmp_path):
    save(results, make_record("mod", 0, 1.9, run_id="again", created="2026-12-01T00:00:00Z"))
    (page,) = build(results, tmp_path)
    assert "mod--s0 is excluded: again is a newer run" in page.read_text(encoding="utf-8")


def test_damaged_files_are_named_and_the_rest_is_built(results, tmp_path, caplog):
    (results / "tiny" / "cut").mkdir()
    (results / "tiny" / "cut" / "record.json").write_text('{"schema_version": 1, "run"', encoding="utf-8")
    (results / "tiny" / "mod--s1" / "steps.csv").write_text("step,loss\n1,x\n", encoding="utf-8")
    (results / "tiny" / "mod--s2" / "routing.json").write_text("{", encoding="utf-8")
    (page,) = build(results, tmp_path / "reports")
    for name in ("tiny/cut/record.json", "tiny/mod--s1/steps.csv", "tiny/mod--s2/routing.json"):
        assert name in caplog.text and name in page.read_text(encoding="utf-8")
    assert str(tmp_path) not in page.read_text(encoding="utf-8")


def test_build_leaves_a_folder_that_is_not_a_report_alone(results, tmp_path):
    notes = tmp_path / "reports" / "tiny" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is not a report"):
        build(results, tmp_path / "reports")
    assert notes.read_text(encoding="utf-8") == "mine"


def test_build_that_fails_leaves_the_old_report_intact(results, tmp_path, monkeypatch):
    (page,) = build(results, tmp_path / "reports")
    before = contents(page.parent)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.web.page.render", fail)
    with pytest.raises(UserError, match="No space left"):
        build(results, tmp_path / "reports")
    assert contents(page.parent) == before
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"tiny", "assets", "index.html"}


def test_terminal_summary_fits_80_columns_and_agrees_with_the_page(tmp_path):
    nats = {"dense": [210.0, 490.0, 810.0, 300.0, 600.0], "mod": [205.0, 470.0, 790.0, 296.0, 580.0]}
    records = [make_record(method, loss=sum(total) / 1200) for method, total in nats.items()]
    for record in records:
        save(tmp_path / "results", record, nats[record.method])
    (page,) = build(tmp_path / "results", tmp_path / "reports")
    (sentence,) = verdicts(records, tmp_path / "results")
    assert " ".join(sentence.split()) in text_of(page).replace("\u00a0", " ")
    assert all(len(line) <= 80 for line in sentence.splitlines())
    table = summary_table(records, tmp_path / "results").splitlines()
    assert all(len(line) <= 80 for line in table)
    head, _, _, dense, mod, *sizes = table
    assert "contract train_flops" in head
    assert mod.split() == ["MoD", "1", "1.951", "−0.057", "(–)", "inconclusive", "1.50×"]
    assert dense.split() == ["Dense", "1", "2.008", "–", "–", "–"]
    assert "tokens/parameter (× optimal size): Dense 0.00 (443.40×)" in " ".join(sizes)


@pytest.mark.parametrize(
    ("damage", "status", "message"),
    [
        (None, 0, ""),
        ("broken", 1, "tiny/cut/record.json is not a complete JSON file"),
        ("empty", 2, "there is no record.json"),
    ],
)
def test_command_line_reports_damage_by_exit_status(results, tmp_path, damage, status, message):
    if damage == "broken":
        (results / "tiny" / "cut").mkdir()
        (results / "tiny" / "cut" / "record.json").write_text("{", encoding="utf-8")
    if damage == "empty":
        results = tmp_path / "none"
        results.mkdir()
    command = [sys.executable, "-m", "bench.report", str(results), "--reports", str(tmp_path / "reports")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == status
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (1 if message else 0)
    assert (tmp_path / "reports" / "tiny" / "index.html").exists() == (status != 2)


def test_import_of_the_report_loads_neither_torch_nor_the_model():
    code = (
        "import sys, bench.report.__main__; print([m for m in sys.modules if m.startswith(('torch', 'bench.model'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_documents_are_read_with_and_without_clusters(tmp_path):
    folder = save(tmp_path, make_record(), nats=[1.0, 2.0, 3.0, 4.0, 5.0])
    before, problems = read_files(make_record(), folder)
    assert not problems and "cluster" not in before.documents
    before.documents.assign(cluster=["Ruth", "Ruth", "1801-Jefferson-1", "3", "4"]).to_csv(folder / "documents.csv")
    after, problems = read_files(make_record(), folder)
    assert not problems
    assert list(after.documents["cluster"]) == ["Ruth", "Ruth", "1801-Jefferson-1", "3", "4"]


@pytest.mark.parametrize(("trained", "named"), [(3.01e9, False), (3.03e9, True)])
def test_budget_missed_beyond_the_tolerance_is_a_caveat(trained, named, tmp_path):
    for method in ("dense", "mod"):
        record = make_record(method, 0, 2.0)
        record.flops.train_total = trained if method == "mod" else 3e9
        save(tmp_path, record)
    build(tmp_path, tmp_path / "reports")
    (page,) = (tmp_path / "reports").glob("*/index.html")
    assert ("off its FLOP budget" in page.read_text(encoding="utf-8")) is named


def test_report_without_bytes_says_why_and_compares_in_nats(tmp_path):
    """A tokenizer that loses text: bits/byte would count bytes that the model never sees."""
    lost = "'Stone' is decoded as '[UNK]'"
    for record in (make_record(), make_record("mod", loss=1.9)):
        text = Text(train_tokens=1000, validation_documents=5, validation_copies=0, training_copies=0)
        text.tokenizer_loses = lost
        record.corpus, record.quality.val_bpb, record.quality.val_bpb_stderr = text, None, None
        save(tmp_path, record)
    (group,) = read_results(tmp_path)[0][0].groups
    assert f"There are no bits/byte, because the tokenizer loses text ({lost})." in " ".join(caveats(group))
    build(tmp_path, tmp_path / "reports")
    page = next((tmp_path / "reports").rglob("report.md")).read_text(encoding="utf-8")
    assert "bits/byte |" not in page and "| Validation loss, nats/token |" in page


def test_caveats_say_passes_sample_and_copies(tmp_path):
    for record in (make_record(), make_record("mod")):
        record.corpus = Text(train_tokens=1000, validation_documents=100, validation_copies=3, training_copies=20)
        record.training.passes = 4.24 if record.method == "mod" else 0.5
        save(tmp_path, record)
    text = " ".join(caveats(read_results(tmp_path)[0][0].groups[0]))
    assert "The training text was read more than once: MoD 4.2 times." in text
    assert "of 100 validation documents" in text and "chosen by hash" in text
    assert "copies of validation documents: 3 of validation, 20 of training" in text
