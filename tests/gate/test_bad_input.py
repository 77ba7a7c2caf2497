"""Files edited by hand, truncated or made up: one clear line and the right exit status, never a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gate_studies import change, change_ci, change_steps, write_study
from report_records import make_record

from bench.errors import UserError
from bench.gate import __main__ as command
from bench.gate.__main__ import main
from bench.records.ci import load_ci
from bench.records.isoflop import load_study
from bench.records.record import load_record
from bench.records.targets import load_targets
from tools.gate_validation.record import load_validation


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, Path]:
    record = make_record(name="ci")
    return write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)


def judged(studies, out: Path) -> int:
    """The exit status, with every output asked for."""
    words = [str(folder) for folder in studies]
    for name in ("json", "markdown", "junit", "bencher", "github-action-benchmark", "history"):
        words += [f"--{name}", str(out / name)]
    return main(words)


def written(folder: Path, old: str, new: str, name: str = "mod-seed0/record.json") -> None:
    """Put `new` where `old` stands in a file, as an editor would."""
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text, text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def speeds(folder: Path) -> dict:
    return json.loads((folder / "ci.json").read_text(encoding="utf-8"))["speed"]


DIGITS = "9" * 400


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: written(f, '"val_loss_nats_stderr": 0.02', '"val_loss_nats_stderr": NaN'), "not a complete JSON"),
        (
            lambda f: written(f, '"val_loss_nats_stderr": 0.02', '"val_loss_nats_stderr": Infinity'),
            "not a complete JSON",
        ),
        (lambda f: written(f, '"val_loss_nats_stderr": 0.02', '"val_loss_nats_stderr": 1e999'), "too large"),
        (lambda f: written(f, '"val_loss_nats_stderr": 0.02', '"val_loss_nats_stderr": 1.7e308'), "not a number"),
        (lambda f: written(f, '"params_total": 1000000', f'"params_total": {DIGITS}'), "too large"),
        (lambda f: change_ci(f, speed=speeds(f) | {"mod": {"train_step_over_dense": [1.0] * 7 + [float("nan")]}}),
         "not a complete JSON"),
        (lambda f: change_ci(f, speed=speeds(f) | {"mod": {"train_step_over_dense": [1.7e308] * 8}}), "not a number"),
        (lambda f: written(f, '"bench_copy"', '"\\ud800"'), "not a complete JSON"),
        (lambda f: written(f, '"mod"', '"m\\udfffd"', "ci.json"), "not a complete JSON"),
        (lambda f: change_steps(f, "mod-seed0", "\n5,", f"\n5,{'1' * 200_000}"), "not a complete step log"),
        (lambda f: change_steps(f, "mod-seed0", "\n5,1.2", f"\n5,{DIGITS}"), "not a number"),
        (lambda f: change_steps(f, "mod-seed0", "\n5,1.2", "\n5,-1.2"), "a loss must be above 0"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats="2.9"), "valid number"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats=True), "valid number"),
        (lambda f: change(f, "mod-seed0", causality__passed="yes"), "valid boolean"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats=0.0), "a loss must be above 0"),
        (lambda f: change(f, "mod-seed0", quality__val_loss_nats=-2.0), "a loss must be above 0"),
        (lambda f: change(f, "mod-seed0", training__final_loss=-2.0), "a loss must be above 0"),
        (lambda f: change_steps(f, "mod-seed0", "\n6,", "\n5,"), "does not log the 99 steps"),
        (lambda f: written(f, "\n99,0.060606,2.0000e-05", "", "mod-seed0/steps.csv"), "does not log the 99 steps"),
        (lambda f: change(f, "mod-seed0", routing__predictor_accuracy=7.0), "a share must be from 0 to 1"),
        (lambda f: change(f, "mod-seed0", routing__fraction_processed_by_layer={"1": -0.1}), "a share must be"),
        (lambda f: change(f, "mod-seed0", lm_eval={"copy": {"acc": 42.0}}), "an accuracy must be from 0 to 1"),
        (lambda f: change(f, "mod-seed0", memory__peak_bytes=-5), "above 0 bytes"),
        (lambda f: change(f, "mod-seed0", causality__max_abs_logit_change=13.0), "said to have passed"),
        (lambda f: change(f, "mod-seed0", causality__max_abs_logit_change=-13.0), "said to have passed"),
        (lambda f: change_ci(f, speed=speeds(f) | {"mod": {"train_step_over_dense": [0.0] * 8}}), "above 0"),
        (lambda f: change(f, "mod-seed0", schema_version="99"), "schema_version"),
        (lambda f: change(f, "mod-seed0", schema_version=99.0), "schema_version"),
        (lambda f: change(f, "mod-seed0", method="dense"), "is the record of dense"),
        (lambda f: change(f, "mod-seed0", method="mode", variant="staged"), "is the record of mode/staged"),
        (lambda f: change_ci(f, runs={"dense": "dense-seed0", "mod": "dense-seed0"}), "is the record of dense"),
        *[(lambda f, run=run: change_ci(f, runs={"mod": run}), "not the name of a run's folder")
          for run in ("..", ".", "", "../base/mod-seed0", "/etc", "mod-seed0/")],
        (lambda f: change_ci(f, runs={"mod": "a\0b"}), "a\\x00b"),
        (lambda f: change_ci(f, runs={"mod": "a" * 300}), "File name too long"),
    ],
)  # fmt: skip
def test_gate_on_an_unreliable_file_is_status_4(studies, tmp_path, capsys, harm, message, side):
    harm(studies[side])
    assert judged(studies, tmp_path / "out") == 4
    out, err = capsys.readouterr()
    assert message.replace("\\x00", "�") in out and not err


def test_gate_judges_extreme_but_finite_figures(studies, tmp_path, capsys):
    change(studies[0], "mod-seed0", routing__expert_load_cv=5e-324, lm_eval={"copy": {"bits_per_byte": -1.7e308}})
    change(studies[1], "mod-seed0", routing__expert_load_cv=2.0, lm_eval={"copy": {"bits_per_byte": 1.7e308}})
    assert judged(studies, tmp_path / "out") == 1
    json.loads((tmp_path / "out" / "json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_gate_takes_a_variant_by_either_name(tmp_path, capsys):
    record = make_record("mode", name="ci", variant="staged")
    base, now = write_study(tmp_path / "base", record), write_study(tmp_path / "now", record)
    for folder, name in ((base, "mode"), (now, "mode/staged")):
        change(folder, "mod-seed0", method="mode")
        change(folder, "dense-seed0", variant=None)
        change_ci(folder, runs={"dense": "dense-seed0", name: "mod-seed0"}, speed={})
    assert main([str(base), str(base)]) == main([str(now), str(now)]) == 0


@pytest.mark.parametrize("option", ["--json", "--markdown", "--history", "--github-action-benchmark"])
@pytest.mark.parametrize("side", [0, 1])
def test_gate_output_inside_a_compared_folder_is_wrong_use(studies, capsys, option, side):
    words = [str(folder) for folder in studies]
    with pytest.raises(SystemExit) as stopped:
        main([*words, option, str(studies[side] / "ci.json")])
    assert stopped.value.code == 2 and "choose a path outside it" in capsys.readouterr().err
    assert main(words) == 0


def test_gate_outputs_to_one_file_are_wrong_use(studies, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*(str(folder) for folder in studies), "--json", str(tmp_path / "out"), "--junit", str(tmp_path / "out")])
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("place", "status"), [("pipe", 1), ("/dev/full", 2)])
def test_gate_keeps_its_status_on_a_closed_pipe_not_a_full_disk(studies, tmp_path, place, status):
    change(studies[1], "mod-seed0", quality__val_loss_nats=2.5)
    words = [sys.executable, "-m", "bench.gate", *(str(folder) for folder in studies), "--json", str(tmp_path / "out")]
    if place == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(place, os.O_WRONLY)
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == status and done.stderr.count("\n") == (status == 2)
    assert json.loads((tmp_path / "out").read_text(encoding="utf-8"))["status"] == 1


def test_gate_on_an_ascii_terminal_prints_question_marks(studies):
    change(studies[1], "mod-seed0", routing__predictor_accuracy=0.5)
    words = [sys.executable, "-m", "bench.gate", *(str(folder) for folder in studies)]
    done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, b"") and b"causal router?s agreement" in done.stdout


def test_gate_on_an_unreadable_folder_is_wrong_use(studies, capsys):
    assert main([str(studies[0]), "a" * 300]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_gate_on_an_unexpected_error_is_status_4_with_traceback(studies, monkeypatch, capsys):
    def fail(*_):
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(command, "compare", fail)
    assert main([str(folder) for folder in studies]) == 4
    assert "ZeroDivisionError: nobody foresaw this" in capsys.readouterr().err


@pytest.mark.parametrize("load", [load_record, load_ci, load_targets, load_study, load_validation])
@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not a complete JSON file"), ("[]", "is not a"), ('{"schema_version": 99}', "schema version 99"),
     (f'{{"a": {DIGITS}}}', "too large"), ("[" * 100_000, "not a complete JSON file")],
)  # fmt: skip
def test_every_kind_of_file_is_read_by_the_same_rules(tmp_path, load, text, message):
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
