"""What a study needs is looked for before anything is measured."""

import shutil
import sys

import pytest

from bench.config.compose import configure
from bench.errors import UserError
from bench.studies import run_study


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    for work in ("bench.studies.decode.prepare", "tools.gate_validation.cost.interleave"):
        monkeypatch.setattr(work, lambda *_: pytest.fail("it went on"))


def _refused(told, *words):
    with pytest.raises(UserError, match=told) as caught:
        run_study(configure(list(words)), "command")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("study", "part"), [("decode", "transformers"), ("gate_time", "playwright")])
def test_a_part_that_is_not_installed(study, part, monkeypatch):
    monkeypatch.setitem(sys.modules, part, None)  # as if it were not
    _refused(r"pip install 'isoflop-bench\[test\]'", f"+study={study}")


def test_a_browser_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _refused("no chromium", "+study=gate_time")


def test_rounds_that_give_no_speed_up():
    _refused("study.rounds=7 is not allowed: a speed-up takes at least 8", "+study=decode", "study.rounds=7")
