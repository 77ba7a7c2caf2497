"""What measuring the gate's cost needs is looked for before anything is measured."""

from __future__ import annotations

import shutil
import sys

import pytest

from tools.gate_validation import cost


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(cost, "interleave", lambda *_: pytest.fail("it went on"))


def test_cost_without_playwright_names_the_install_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "playwright", None)  # as if it were not installed
    assert cost.main([]) == 2
    message = capsys.readouterr().err
    assert "pip install 'isoflop-bench[test]'" in message and message.count("\n") == 1


def test_cost_without_a_browser_names_chromium(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cost.main([]) == 2
    message = capsys.readouterr().err
    assert "no chromium" in message and message.count("\n") == 1
