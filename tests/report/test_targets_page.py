"""Targets met and missed, on disk and on the page."""

import pytest

from bench.errors import UserError
from bench.records.record import Environment, Timing
from bench.records.targets import FILE, Target, Targets, load_targets
from bench.report.targets import write_study


def _bars() -> Targets:
    environment = Environment(
        python="3.11", torch="2.13", device="cpu", device_name="<a cpu>", platform="linux", threads=2, packages={}
    )
    value = Timing(median=1.04, low=1.0, high=1.1, samples=12)
    return Targets(
        study="step_time",
        created="2026-01-01T00:00:00+00:00",
        command="python -m bench +study=step_time",
        environment=environment,
        shape={"n_layers": 8, "d_model": 256, "n_heads": 4, "context": 256, "batch_size": 16},
        rounds=12,
        targets=[
            Target(figure="under", value=value, at_most=1.05, step_seconds=value, flop_ratio=0.5676),
            Target(figure="over", value=value, at_most=1.03),
        ],
    )


def test_target_is_met_by_its_median():
    assert [bar.met for bar in _bars().targets] == [True, False]


def test_targets_are_read_back_as_saved(tmp_path):
    assert load_targets(_bars().save(tmp_path / FILE)) == _bars()


def test_damaged_targets_file_gives_one_line(tmp_path):
    path = _bars().save(tmp_path / FILE)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="targets.json") as caught:
        load_targets(path)
    assert "\n" not in str(caught.value)


def test_targets_page_names_misses_and_escapes_names(tmp_path):
    page = write_study(_bars().save(tmp_path / FILE), tmp_path / "reports")
    html = page.read_text()
    assert "missed" in html and "met" in html
    assert "&lt;a cpu&gt;" in html and "<a cpu>" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "| over | 1.040 (1.000 to 1.100) | at most 1.03 | missed |" in (page.parent / "report.md").read_text()
