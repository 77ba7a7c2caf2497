"""What a study needs is looked for before anything is measured."""

import sys

import pytest

from bench.config.compose import configure
from bench.errors import UserError
from bench.studies import run_study


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr("bench.studies.decode.prepare", lambda *_: pytest.fail("it went on"))


def _refused(told, *words):
    with pytest.raises(UserError, match=told) as caught:
        run_study(configure(list(words)), "command")
    assert "\n" not in str(caught.value)


def test_a_part_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not
    _refused(r"pip install 'isoflop-bench\[test\]'", "+study=decode")


def test_rounds_that_give_no_speed_up():
    _refused("study.rounds=7 is not allowed: a speed-up needs at least 8", "+study=decode", "study.rounds=7")
