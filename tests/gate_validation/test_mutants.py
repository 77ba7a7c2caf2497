"""The injected regressions apply to the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.gate_validation.mutants import DETERMINISTIC, LEAKS, SLOWER, inject

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", [*DETERMINISTIC, *LEAKS, *SLOWER], ids=lambda mutant: mutant.name)
def test_inject_changes_the_source_and_leaves_valid_python(mutant, tmp_path: Path):
    inject(mutant, tmp_path)
    ast.parse((tmp_path / mutant.file).read_text(encoding="utf-8"))
    assert (tmp_path / mutant.file).read_text(encoding="utf-8") != (ROOT / mutant.file).read_text(encoding="utf-8")


def test_there_are_twenty_deterministic_mutants_seven_leaks_and_ten_slower_ones():
    assert [len({m.name for m in kind}) for kind in (DETERMINISTIC, LEAKS, SLOWER)] == [20, 7, 10]
