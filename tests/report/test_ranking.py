"""Ranks follow the stated rule: three seeds, and significant after Holm's correction."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from report_records import make_record, save

from bench.report.load import read_results
from bench.report.ranking import write_ranking


def write(folder: Path, losses: dict[str, list[float]]) -> Path | None:
    for method, own in losses.items():
        for seed, loss in enumerate(own):
            save(folder / "results", make_record(method, seed, loss))
    return write_ranking(read_results(folder / "results")[0], folder / "reports")


def test_ranking_follows_the_rule(tmp_path: Path):
    page = write(
        tmp_path,
        {
            "dense": [2.00, 2.01, 2.02],
            "mod": [1.80, 1.81, 1.82],
            "moe": [1.90, 2.01, 2.09],
            "shallow": [2.30, 2.31, 2.32],
            "mode": [1.0, 1.0],  # two seeds
        },
    )
    assert page is not None and "Ranked above dense: MoD" in page.read_text(encoding="utf-8")
    table = pd.read_csv(page.parent / "tables" / "ranking.csv")
    assert list(zip(table["method"], table["rank"], strict=True)) == [
        ("MoD", "above dense"), ("MoE", "with dense"), ("Shallow", "below dense"),
    ]  # fmt: skip
    assert "Holm" in (page.parent / "report.md").read_text(encoding="utf-8")


def test_ranking_of_single_seeds_is_not_written(tmp_path: Path):
    assert write(tmp_path, {"dense": [2.0], "mod": [1.0]}) is None
    assert not (tmp_path / "reports").exists()
