"""A results folder of a finished comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import make_record, save


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Dense and MoD, three seeds each."""
    folder = tmp_path / "results"
    for seed, (dense, mod) in enumerate([(2.00, 1.95), (2.10, 2.07), (1.95, 1.91)]):
        save(folder, make_record("dense", seed, dense))
        save(folder, make_record("mod", seed, mod))
    return folder
