"""The gate's verdict, figure by figure, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gate_studies import change, change_speed, write_study
from report_records import make_record

from bench.gate.__main__ import main
from bench.gate.compare import compare
from bench.gate.read import NoDataError, read_side
from bench.gate.rules import EFFECT, P

LOSS = "quality.val_loss_nats"


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, Path]:
    """The same study twice, but for the noise of speed."""
    record = make_record(name="ci")
    return write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)


def judged(studies):
    return compare(*(read_side(folder) for folder in studies))


def kinds(verdict) -> dict[str, str]:
    return {f"{f.method} {f.figure}": f.kind for f in verdict.findings}


def test_the_same_study_is_fine(studies):
    verdict = judged(studies)
    assert (verdict.status, verdict.findings, verdict.notes) == (0, [], [])
    figures = {name for _, name in verdict.current.figures}
    assert {
        LOSS,
        "model.params_total",
        "flops.forward_fvcore",
        "loss_curve.50",
        "routing.predictor_accuracy",
    } <= figures
    assert verdict.compared == len(verdict.baseline.figures) > 40


@pytest.mark.parametrize(
    ("part", "value", "kind"),
    [
        ("quality__val_loss_nats", 2.2, "regressed"),
        ("quality__val_loss_nats", 1.8, "improved"),
        ("routing__predictor_accuracy", 0.7, "regressed"),
        ("routing__fraction_processed", 0.9, "changed"),
        ("model__params_total", 1_000_001, "changed"),
        ("flops__forward_per_token", 1.03e6, "changed"),
        ("flops__forward_per_token", 0.97e6, "changed"),
        ("training__lr", 4.4e-3, "changed"),
        ("memory__peak_bytes", 2**31, "regressed"),
        ("quality__tokens_evaluated", 600, "changed"),
    ],
)
def test_a_figure_beyond_its_tolerance_is_found(studies, part, value, kind):
    change(studies[1], "mod-seed0", **{part: value})
    verdict = judged(studies)
    assert kinds(verdict) == {f"mod {part.replace('__', '.')}": kind}
    assert verdict.status == (0 if kind == "improved" else 1)


def test_within_its_tolerance_it_is_not(studies):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.02)
    verdict = judged(studies)
    assert (verdict.status, verdict.findings) == (0, [])
    assert "1 figures are not the same to the bit" in verdict.notes[0]


def test_the_early_loss_curve_is_held_to_rounding(studies):
    path = studies[1] / "dense-seed0" / "steps.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("\n5,1.2", "\n5,1.2001", 1), encoding="utf-8")
    verdict = judged(studies)
    assert kinds(verdict) == {"dense loss_curve.5": "changed"}


def test_a_changed_setting_is_found_first(studies):
    change(studies[1], "dense-seed0", config__data__name="other", quality__val_loss_nats=3.0)
    verdict = judged(studies)
    assert [f.figure for f in verdict.findings] == ["config.data.name", LOSS]
    assert (verdict.findings[0].was, verdict.findings[0].now) == ("'kjv'", "'other'")


def test_a_metric_that_vanished_is_a_finding_and_a_new_one_no_fault(studies):
    change(studies[1], "mod-seed0", routing__predictor_accuracy=None)
    assert kinds(judged(studies)) == {"mod routing.predictor_accuracy": "vanished"}
    assert judged(studies).status == 1
    assert kinds(judged(studies[::-1])) == {"mod routing.predictor_accuracy": "new"}
    assert judged(studies[::-1]).status == 0


def test_a_method_that_vanished_is_one_finding(studies):
    content = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))
    for part in ("runs", "speed"):
        del content[part]["mod"]
    (studies[1] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    findings = judged(studies).findings
    assert [(f.kind, f.method, f.figure) for f in findings] == [("vanished", "mod", "")]


@pytest.mark.parametrize(("factor", "status"), [(1.10, 1), (1.03, 0), (0.97, 0), (0.90, 0)])
def test_a_slower_step_is_told_by_test_and_size(studies, factor, status):
    change_speed(studies[1], "mod", factor)
    verdict = judged(studies)
    assert verdict.status == status
    expected = {1.10: ["regressed"], 0.90: ["improved"]}.get(factor, [])
    assert [f.kind for f in verdict.findings] == expected


def test_speed_needs_six_samples_a_side(studies):
    content = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))
    content["speed"]["mod"]["train_step_over_dense"] = [2.0] * 5
    (studies[1] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    verdict = judged(studies)
    assert verdict.status == 0
    assert any("needs 6 samples" in note for note in verdict.notes)


def test_noise_rarely_reads_as_a_slow_down_and_ten_percent_mostly_do():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)

    def alarm(shift: float, noise: float) -> bool:
        was, now = rng.normal(1.0, noise, 8), rng.normal(1.0 + shift, noise, 8)
        return np.median(now) / np.median(was) - 1 > EFFECT and mannwhitneyu(was, now).pvalue < P

    assert sum(alarm(0.0, 0.03) for _ in range(2000)) <= 2
    assert sum(alarm(0.10, 0.02) for _ in range(200)) >= 190


def test_another_machine_never_reads_as_a_regression_of_speed(tmp_path):
    record = make_record(name="ci")
    base = write_study(tmp_path / "base", record)
    now = write_study(tmp_path / "now", record, place="another CPU")
    change_speed(now, "mod", 3.0)
    change(now, "mod-seed0", memory__peak_bytes=2**34)
    verdict = judged((base, now))
    assert (verdict.status, verdict.findings) == (0, [])
    assert "another machine" in verdict.notes[0]
    change(now, "mod-seed0", quality__val_loss_nats=9.0)
    assert judged((base, now)).status == 1


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: change(f, "mod-seed0", causality__passed=False), "failed its causality audit"),
        (lambda f: change(f, "mod-seed0", run__status="diverged"), "diverged"),
        (lambda f: change(f, "mod-seed0", causality=None), "not audited"),
        (lambda f: change(f, "mod-seed0", schema_version=99), "schema version 99"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats=float("nan")), "not a number"),
        (lambda f: change(f, "mod-seed0", model__params_total="many"), "not a valid record"),
        (lambda f: (f / "mod-seed0" / "record.json").write_text('{"run"', encoding="utf-8"), "not a whole JSON"),
        (lambda f: (f / "mod-seed0" / "record.json").unlink(), "cannot read"),
        (lambda f: (f / "mod-seed0" / "steps.csv").write_text("step,loss\n1,abc\n", encoding="utf-8"), "whole log"),
        (lambda f: (f / "ci.json").write_text("{", encoding="utf-8"), "not a whole JSON"),
        (lambda f: (f / "ci.json").write_text('{"schema_version": 2}', encoding="utf-8"), "schema version 2"),
        (lambda f: (f / "ci.json").write_text('{"runs": 3}', encoding="utf-8"), "not a ci study"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_record_is_status_4_on_either_side(studies, capsys, harm, told, side):
    harm(studies[side])
    assert main([str(folder) for folder in studies]) == 4
    out = capsys.readouterr().out
    assert told in out and out.splitlines()[0].startswith(f"broken: {('baseline', 'current')[side]}")


def test_a_run_id_is_never_followed_elsewhere(studies, tmp_path):
    content = (studies[1] / "ci.json").read_text(encoding="utf-8")
    (studies[1] / "ci.json").write_text(content.replace('"mod-seed0"', '"../base/mod-seed0"'), encoding="utf-8")
    verdict = judged(studies)
    assert verdict.status == 4
    assert "not the name of a run's folder" in verdict.broken[0]


def test_nothing_in_common_is_status_3(studies, tmp_path, capsys):
    record = make_record(name="other")
    other = write_study(tmp_path / "other", record, name="other")
    assert main([str(studies[0]), str(other)]) == 3
    assert "different studies" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(studies[0]), str(tmp_path / "empty")]) == 3
    with pytest.raises(NoDataError):
        read_side(tmp_path / "empty")


def test_wrong_use_is_status_2(studies, tmp_path, capsys):
    assert main([str(studies[0]), str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        main([str(studies[0])])
    assert stopped.value.code == 2


def test_folders_of_plain_records_are_compared_too(studies):
    for folder in studies:
        (folder / "ci.json").unlink()
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    assert kinds(judged(studies)) == {"mod,seed0 quality.val_loss_nats": "regressed"}


def test_names_reach_the_terminal_as_plain_text(studies, capsys):
    for folder in studies:
        content = json.loads((folder / "ci.json").read_text(encoding="utf-8"))
        content["runs"]["\x1b[31mred"] = content["runs"].pop("mod")
        (folder / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    main([str(folder) for folder in studies])
    assert "\x1b" not in capsys.readouterr().out


def test_accepting_makes_the_new_study_the_baseline(studies, capsys):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    (studies[1] / "mod-seed0" / "model.safetensors").write_bytes(b"weights")
    assert main([str(folder) for folder in studies]) == 1
    assert main([*(str(folder) for folder in studies), "--accept"]) == 0
    assert main([str(folder) for folder in studies]) == 0
    assert not (studies[0] / "mod-seed0" / "model.safetensors").exists()
    assert not [path for path in studies[0].parent.iterdir() if path.name.startswith(".")]


def test_what_is_broken_or_foreign_is_not_accepted(studies, capsys):
    before = (studies[0] / "ci.json").read_text(encoding="utf-8")
    (studies[0] / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert main([*(str(folder) for folder in studies), "--accept"]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    (studies[0] / "thesis.tex").unlink()
    assert main([str(studies[0]), str(studies[0]), "--accept"]) == 2
    change(studies[1], "mod-seed0", causality__passed=False)
    assert main([*(str(folder) for folder in studies), "--accept"]) == 2
    assert (studies[0] / "ci.json").read_text(encoding="utf-8") == before


def test_the_gate_needs_no_torch(studies):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    program = "import sys; from bench.gate.__main__ import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    change_speed(studies[1], "mod", 1.5)
    done = subprocess.run([sys.executable, "-c", program, *map(str, studies)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "p = " in done.stdout
