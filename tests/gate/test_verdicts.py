"""The gate's verdict, figure by figure, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gate_studies import change, change_ci, change_speed, change_steps, machine, write_study
from report_records import make_record

from bench.gate.__main__ import main
from bench.gate.compare import compare, confirmed
from bench.gate.export import bencher
from bench.gate.history import row_of
from bench.gate.load import NoDataError, Side, read_side
from bench.gate.rules import rule_of
from bench.gate.text import summary
from bench.stats.interval import Interval

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


def test_compare_of_the_same_study_is_fine(studies):
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
        ("routing__predictor_accuracy", 0.7, "regressed"),
        ("routing__fraction_processed", 0.9, "changed"),
        ("model__params_total", 1_000_001, "changed"),
        ("flops__forward_per_token", 1.03e6, "changed"),
        ("flops__forward_per_token", 0.97e6, "changed"),
        ("training__lr", 4.4e-3, "changed"),
        ("memory__peak_bytes", 2**31, "regressed"),
        ("quality__tokens_evaluated", 600, "changed"),
        ("quality__val_bpb", 3.2, "regressed"),
        ("flops__parts__feed-forward", 6.1e5, "changed"),
        ("model__context", 256, "changed"),
    ],
)
def test_compare_finds_a_figure_beyond_its_tolerance(studies, part, value, kind):
    change(studies[1], "mod-seed0", **{part: value})
    verdict = judged(studies)
    assert kinds(verdict) == {f"mod {part.replace('__', '.')}": kind}
    assert verdict.status == 1


def test_better_figure_is_improved_only_if_training_differs(studies):
    change(studies[1], "mod-seed0", quality__val_loss_nats=1.8)
    assert kinds(judged(studies)) == {"mod quality.val_loss_nats": "changed"}
    change_steps(studies[1], "mod-seed0", "\n50,0.120000", "\n50,0.120001")
    assert kinds(judged(studies)) == {"mod quality.val_loss_nats": "improved"}
    assert judged(studies).status == 0


def test_every_figure_of_the_committed_study_has_a_rule():
    side = read_side(Path(__file__).parents[2] / "results" / "ci")
    assert len(side.figures) > 500
    assert [key for key in side.figures if rule_of(key[1], key[0]) is None] == []


def test_score_without_a_named_rule_may_change_but_not_vanish(studies):
    for folder, value in zip(studies, (5.0, 500.0), strict=True):
        change(folder, "mod-seed0", lm_eval={"lambada": {"word_perplexity": value, "brier_score": value}})
    moved = {"mod lm_eval.lambada.brier_score": "changed", "mod lm_eval.lambada.word_perplexity": "regressed"}
    assert kinds(judged(studies)) == moved  # of the same training
    change_steps(studies[1], "mod-seed0", "\n50,0.120000", "\n50,0.120001")
    assert kinds(judged(studies)) == {}
    change(studies[1], "mod-seed0", lm_eval={"lambada": {"brier_score": 500.0}})
    assert kinds(judged(studies)) == {"mod lm_eval.lambada.word_perplexity": "vanished"}


def test_compare_ignores_changes_within_tolerance(studies):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.02, training__final_loss=2.0000001)
    verdict = judged(studies)
    assert (verdict.status, verdict.findings) == (0, [])
    assert "2 figures differ within what rounding explains" in verdict.notes[0]


@pytest.mark.parametrize(
    "part", ["quality__val_loss_nats", "routing__predictor_accuracy", "routing__fraction_processed"]
)
def test_figures_after_bitwise_equal_training_may_not_change(studies, part):
    value = json.loads((studies[1] / "mod-seed0" / "record.json").read_text(encoding="utf-8"))
    for key in part.split("__"):
        value = value[key]
    change(studies[1], "mod-seed0", **{part: value * (1 + 1e-6)})
    assert judged(studies).status == 0
    worse = -0.01 if part.endswith("accuracy") else 0.01
    change(studies[1], "mod-seed0", **{part: value * (1 + worse)})
    assert [f.figure for f in judged(studies).findings] == [part.replace("__", ".")]
    change_steps(studies[1], "mod-seed0", "\n50,0.120000", "\n50,0.120001")  # the training was another one
    assert judged(studies).status == 0


def test_compare_finds_a_router_dead_at_evaluation(studies):
    dead = {"1": 0.0, "3": 0.0}
    change(studies[1], "mod-seed0", routing__fraction_processed=0.0, routing__fraction_processed_by_layer=dead)
    found = kinds(judged(studies))
    assert found == {
        "mod routing.fraction_processed": "changed",
        "mod routing.fraction_processed_by_layer.1": "changed",
        "mod routing.fraction_processed_by_layer.3": "changed",
    }
    assert "fraction of tokens processed, layer 3" in [f.words for f in judged(studies).findings]


def test_speed_and_memory_keep_their_tolerance_after_equal_training(studies):
    change(studies[1], "mod-seed0", memory__peak_bytes=int(1000 * 2**20 * 1.02))
    change_speed(studies[1], "mod", 1.03)
    assert judged(studies).findings == []


def test_compare_finds_a_learning_rate_that_stops_falling(studies):
    change_steps(studies[1], "mod-seed0", ",4.0000e-04", ",1.0000e-03")
    found = judged(studies).findings
    assert [(f.kind, f.figure, f.words) for f in found] == [("changed", "lr_curve.80", "learning rate, step 80")]


def test_early_loss_curve_may_change_only_by_rounding(studies):
    change_steps(studies[1], "dense-seed0", "\n5,1.200000", "\n5,1.200100")
    verdict = judged(studies)
    assert kinds(verdict) == {"dense loss_curve.5": "changed"}


def test_changed_setting_is_the_first_finding(studies):
    change(studies[1], "dense-seed0", config__data__name="other", quality__val_loss_nats=3.0)
    verdict = judged(studies)
    assert [f.figure for f in verdict.findings] == ["config.data.name", LOSS]
    assert (verdict.findings[0].was, verdict.findings[0].now) == ("'kjv'", "'other'")


def test_added_setting_is_new_and_removed_setting_changed(studies):
    change(studies[1], "dense-seed0", config__data__shuffled=False)
    assert kinds(judged(studies)) == {"dense config.data.shuffled": "new"}
    assert judged(studies).status == 0
    assert kinds(judged(studies[::-1])) == {"dense config.data.shuffled": "changed"}


def test_vanished_metric_fails_and_new_metric_does_not(studies):
    change(studies[1], "mod-seed0", routing__predictor_accuracy=None)
    assert kinds(judged(studies)) == {"mod routing.predictor_accuracy": "vanished"}
    assert judged(studies).status == 1
    assert kinds(judged(studies[::-1])) == {"mod routing.predictor_accuracy": "new"}
    assert judged(studies[::-1]).status == 0


def test_vanished_method_is_one_finding(studies):
    content = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))
    for part in ("runs", "speed"):
        del content[part]["mod"]
    (studies[1] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    findings = judged(studies).findings
    assert [(f.kind, f.method, f.figure) for f in findings] == [("vanished", "mod", "")]


@pytest.mark.parametrize(("factor", "status"), [(1.10, 1), (1.03, 0), (0.97, 0), (0.90, 0)])
def test_slower_step_is_found_by_test_and_effect_size(studies, factor, status):
    change_speed(studies[1], "mod", factor)
    verdict = judged(studies)
    assert verdict.status == status
    expected = {1.10: ["regressed"], 0.90: ["improved"]}.get(factor, [])
    assert [f.kind for f in verdict.findings] == expected


def test_speed_needs_six_samples_per_side(studies):
    content = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))
    content["speed"]["mod"]["train_step_over_dense"] = [2.0] * 5
    (studies[1] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    verdict = judged(studies)
    assert kinds(verdict) == {"mod speed.train_step_over_dense": "vanished"}
    assert (verdict.findings[0].was, verdict.findings[0].now) == ("8 samples", "5 samples")
    verdict = judged(studies[::-1])
    assert verdict.status == 0
    assert any("needs 6 samples" in note for note in verdict.notes)


@pytest.mark.parametrize("samples", [6, 8])
def test_samples_with_ties_are_tested_exactly(samples):
    was, now = np.linspace(0.70, 0.74, samples), np.linspace(1.40, 1.45, samples)
    assert compare(timed(was), timed(now)).status == 1
    was[1] = was[0]
    now[-1] = now[-2]
    assert compare(timed(was), timed(now)).status == 1
    assert compare(timed(was), timed(np.array([*now[:-2], *was[:2]]))).status == 0


def timed(samples: np.ndarray) -> Side:
    """A study of which only the speed of mod is known."""
    key = ("mod", "speed.train_step_over_dense")
    figures = {key: Interval.of_median(samples.tolist())}
    return Side(Path("study"), "ci", "2026", None, machine(), figures, {}, {key: tuple(samples.tolist())})


@pytest.mark.parametrize(
    ("processes", "shift", "noise", "least", "most"),
    [
        (8, 0.0, 0.03, 0, 2),
        (6, 0.0, 0.03, 0, 3),
        (8, 0.05, 0.01, 0, 10),
        (8, 0.05, 0.03, 0, 10),
        (8, 0.10, 0.02, 900, 1000),
        (8, 0.10, 0.01, 1000, 1000),
        (6, 0.20, 0.01, 1000, 1000),
    ],
)
def test_slow_down_of_ten_percent_is_found_and_five_rarely(processes, shift, noise, least, most):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        was, now = rng.normal(1.0, noise, processes), rng.normal(1.0 + shift, noise, processes)
        found += compare(timed(was), timed(now)).status == 1
    assert least <= found <= most


def test_speed_only_on_another_machine_is_no_data(studies, tmp_path, capsys):
    other = write_study(tmp_path / "other", make_record(name="ci"), place="another CPU")
    assert main([str(studies[0]), str(other), "--speed-only"]) == 3
    assert "another machine" in capsys.readouterr().err


def test_verdict_counts_only_compared_figures(tmp_path):
    record = make_record(name="ci")
    base, same = write_study(tmp_path / "base", record), write_study(tmp_path / "same", record)
    other = write_study(tmp_path / "other", record, place="another CPU")
    whole, part = judged((base, same)), judged((base, other))
    assert part.compared == whole.compared - len(part.skipped)
    assert {name.split(".")[0] for _, name in part.skipped} == {"memory", "speed"} and len(part.skipped) == 4


def test_speed_only_judges_only_speed(studies, capsys):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5, config__data__name="other", routing=None)
    words = [*(str(folder) for folder in studies), "--speed-only"]
    assert main(words) == 0
    change_speed(studies[1], "mod", 1.2)
    assert main(words) == 1
    assert "regressed  MoD" in capsys.readouterr().out


def test_speed_only_ignores_a_removed_method(studies):
    content = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))
    for part in ("runs", "speed"):
        del content[part]["mod"]
    (studies[1] / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    words = [str(folder) for folder in studies]
    assert main(words) == 1
    assert main([*words, "--speed-only"]) == 0


def test_speed_without_a_rule_is_noted_and_not_judged(studies):
    for folder, value in zip(studies, (1.0, 9.0), strict=True):
        speed = json.loads((folder / "ci.json").read_text(encoding="utf-8"))["speed"]
        speed["mod"]["of_light"] = [value] * 8
        change_ci(folder, speed=speed)
    verdict = judged(studies)
    assert verdict.findings == [] and verdict.notes == ["MoD, speed.of_light: not compared because it has no rule."]


@pytest.mark.parametrize("harm", [{"causality__passed": False}, {"run__status": "diverged"}, {"causality": None}])
def test_quality_of_a_failed_run_is_no_figure(studies, harm):
    change(studies[1], "mod-seed0", **harm)
    side = read_side(studies[1])
    found = {method: {name.split(".")[0] for own, name in side.figures if own == method} for method in ("dense", "mod")}
    assert found["dense"] >= {"quality", "lm_eval"}
    assert not found["mod"] & {"quality", "lm_eval", "routing"} and {"flops", "speed", "memory"} <= found["mod"]


def test_machine_depends_on_the_processor_as_well(studies):
    place = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))["environment"]
    change_ci(studies[1], environment=place | {"processor": "family 25 model 1 stepping 1, AVX2"})
    assert read_side(studies[0]).machine != read_side(studies[1]).machine
    change_ci(studies[1], environment=place)
    assert read_side(studies[0]).machine == read_side(studies[1]).machine


@pytest.mark.parametrize(("times", "judged_at"), [(0.7, False), (0.9, True), (1.1, True), (1.3, False), (2.0, False)])
def test_speed_is_judged_only_if_the_machine_is_as_fast(studies, times, judged_at):
    for folder, seconds in zip(studies, (0.02, 0.02 * times), strict=True):
        change_ci(folder, encoder_seconds=[seconds] * 8)
    change_speed(studies[1], "mod", 1.3)
    change_speed(studies[1], "dense", 1.5)
    change(studies[1], "mod-seed0", memory__peak_bytes=2**34)
    verdict = judged(studies)
    slower = {"mod speed.train_step_over_dense", "dense speed.train_step_over_torch"} if judged_at else set()
    assert set(kinds(verdict)) == {"mod memory.peak_bytes"} | slower
    assert any(f"encoder took {times:.2f} times" in note for note in verdict.notes) != judged_at
    assert summary(verdict).startswith("speed: not compared") != judged_at
    speeds = {name for name in row_of(verdict, None).figures if "speed.train_step_over" in name}
    exported = [name for own in json.loads(bencher(verdict)).values() for name in own if "train_step_over" in name]
    assert len(speeds) == len(exported) == (2 if judged_at else 0)
    change_ci(studies[0], encoder_seconds=[])
    assert len(kinds(judged(studies))) == 3, "what is not known does not hinder"


def test_speed_only_without_comparable_speed_is_no_data(studies, capsys):
    words = [*map(str, studies), "--speed-only"]
    for folder, seconds in zip(studies, (0.02, 0.03), strict=True):
        change_ci(folder, encoder_seconds=[seconds] * 8)
    assert main(words) == 3
    assert "took 1.50 times as long" in capsys.readouterr().err
    memory = json.loads((studies[0] / "mod-seed0" / "record.json").read_text(encoding="utf-8"))["memory"]["peak_bytes"]
    change(studies[1], "mod-seed0", memory__peak_bytes=16 * memory)
    assert main(words) == 1, "a regression of memory is reported all the same"
    change(studies[1], "mod-seed0", memory__peak_bytes=memory)
    speed = json.loads((studies[1] / "ci.json").read_text(encoding="utf-8"))["speed"]
    few = {method: {name: own[:3] for name, own in each.items()} for method, each in speed.items()}
    change_ci(studies[1], speed=few)
    assert main(words) == 1, "too few samples are a finding at any pace"


def test_another_machine_is_no_regression_of_speed(tmp_path):
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
    ("harm", "found"),
    [
        (lambda f: change(f, "mod-seed0", causality__passed=False), "failed its causality audit"),
        (lambda f: change(f, "mod-seed0", run__status="diverged"), "diverged"),
        (lambda f: change(f, "mod-seed0", causality=None), "not audited"),
        (lambda f: change(f, "mod-seed0", schema_version=99), "schema version 99"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats=float("nan")), "not a complete JSON"),
        (lambda f: change(f, "mod-seed0", model__params_total="many"), "not a valid record"),
        (lambda f: (f / "mod-seed0" / "record.json").write_text('{"run"', encoding="utf-8"), "not a complete JSON"),
        (lambda f: (f / "mod-seed0" / "record.json").unlink(), "cannot read"),
        (lambda f: (f / "mod-seed0" / "steps.csv").write_text("step,loss\n1,abc\n", encoding="utf-8"), "step log"),
        (lambda f: (f / "ci.json").write_text("{", encoding="utf-8"), "not a complete JSON"),
        (lambda f: (f / "ci.json").write_text('{"schema_version": 3}', encoding="utf-8"), "schema version 3"),
        (lambda f: (f / "ci.json").write_text('{"runs": 3}', encoding="utf-8"), "not a ci study"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", [0, 1])
def test_broken_record_on_either_side_is_status_4(studies, capsys, harm, found, side):
    harm(studies[side])
    assert main([str(folder) for folder in studies]) == 4
    out = capsys.readouterr().out
    assert found in out and out.splitlines()[0].startswith(f"broken: {('baseline', 'current')[side]}")


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


def test_compare_takes_folders_of_plain_records(studies):
    for folder in studies:
        (folder / "ci.json").unlink()
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    assert kinds(judged(studies)) == {"mod,seed0 quality.val_loss_nats": "regressed"}


def test_plain_records_of_one_method_and_seed_have_ids(tmp_path):
    base, now = tmp_path / "base", tmp_path / "now"
    for folder, shapes in ((base, ("b", "c")), (now, ("a", "b", "c"))):
        for shape in shapes:
            record = make_record("mod", name="grid", run_id=f"mod-seed0-{shape}", loss=1 + ord(shape) / 100)
            (folder / record.run.id).mkdir(parents=True)
            record.save(folder / record.run.id / "record.json")
    assert kinds(judged((base, now))) == {"mod,seed0,mod-seed0-a ": "new"}


def test_rules_of_a_method_apply_to_plain_records(studies):
    for folder, loss in zip(studies, (2.0, 2.4), strict=True):
        change(folder, "mod-seed0", method="expert_choice", quality__val_loss_nats=loss)
        (folder / "ci.json").unlink()
    change_steps(studies[1], "mod-seed0", "\n50,0.120000", "\n50,0.120001")
    assert kinds(judged(studies)) == {}


def test_terminal_shows_names_as_plain_text(studies, capsys):
    for folder in studies:
        content = json.loads((folder / "ci.json").read_text(encoding="utf-8"))
        content["runs"]["\x1b[31mred"] = content["runs"].pop("mod")
        (folder / "ci.json").write_text(json.dumps(content), encoding="utf-8")
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    main([str(folder) for folder in studies])
    assert "\x1b" not in capsys.readouterr().out


def test_gate_imports_no_torch(studies):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    program = "import sys; from bench.gate.__main__ import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    change_speed(studies[1], "mod", 1.5)
    done = subprocess.run([sys.executable, "-c", program, *map(str, studies)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "p = " in done.stdout


def again(folder: Path, factor: float) -> Path:
    """The same study timed once more, mod's step `factor` times as long as the baseline's."""
    study = write_study(folder, make_record(name="ci"), seed=7)
    change_speed(study, "mod", factor)
    return study


def test_retime_names_the_methods_if_speed_alone_regressed(studies):
    assert judged(studies).retime == []
    change_speed(studies[1], "mod", 1.2)
    assert judged(studies).retime == ["dense", "mod"]
    change(studies[1], "mod-seed0", memory__peak_bytes=2**34)
    assert judged(studies).retime == []


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.2, 1)])
def test_slower_step_counts_only_if_it_is_slower_again(studies, tmp_path, factor, status):
    change_speed(studies[1], "mod", 1.2)
    words = [*map(str, studies), "--json", str(tmp_path / "gate.json")]
    assert main(words) == 1
    assert main([*words, "--again", str(again(tmp_path / "again", factor))]) == status
    content = json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))
    assert any("no longer slower: MoD" in note for note in content["notes"]) == (status == 0)
    assert content["retime"] == []  # not a third time


def test_timing_again_excuses_speed_alone(studies, tmp_path):
    change_speed(studies[1], "mod", 1.2)
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    verdict = confirmed(judged(studies), read_side(again(tmp_path / "again", 1.0)))
    assert set(kinds(verdict)) == {"mod quality.val_loss_nats"} and verdict.status == 1


def test_timing_again_on_another_machine_excuses_nothing(studies, tmp_path):
    change_speed(studies[1], "mod", 1.2)
    other = write_study(tmp_path / "again", make_record(name="ci"), seed=7, place="another CPU")
    verdict = confirmed(judged(studies), read_side(other))
    assert verdict.status == 1 and any("could not be timed once more" in note for note in verdict.notes)


def test_summary_says_first_that_speed_was_not_compared(tmp_path):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record, place="another CPU")
    text = summary(compare(read_side(base), read_side(now)))
    assert text.startswith("speed: not compared (the baseline ran on another machine); ")
