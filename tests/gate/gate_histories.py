"""Made-up histories of a gate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from bench.gate.history import Row
from bench.gate.load import read_side
from bench.stats.interval import Interval

CI = Path(__file__).parents[2] / "results" / "ci"
MACHINES = ("AMD EPYC 7763 64-Core Processor", "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "Apple M2")


def history(runs: int = 12, **changes) -> list[Row]:
    """Two machines in turn; mod's loss steps by half a percent for good at run 8."""
    rows = []
    for number in range(runs):
        loss = 2.0 if number < 8 else 2.01
        figures = {
            "dense quality.val_loss_nats": [2.1],
            "mod quality.val_loss_nats": [loss, loss - 0.05, loss + 0.05],
            "mod model.params_total": [1_000_000.0],
        }
        parts = {
            "id": f"run{number}", "created": f"2026-11-{number + 1:02}T00:00:00+00:00", "commit": f"c0ffee{number:02}",
            "link": f"https://ci.example/{number}", "study": "ci", "machine": ("aaaa", "bbbb")[number % 2],
            "machine_name": ("CPU A", "CPU B")[number % 2], "verdict": "fine", "figures": figures,
        }  # fmt: skip
        rows.append(Row(**(parts | changes)))
    return rows


def realistic(runs: int, seed: int = 0) -> list[Row]:
    """Three machines in turn over the figures of the committed ci study: losses that repeat to the bit, noisy speed.

    Four fifths through, mod's losses rise by half a percent and MoE's training step slows by 8 % for good; the last
    runs of every machine execute 3 % more FLOPs in dense.
    """
    rng = np.random.default_rng(seed)
    figures = {f"{method} {name}": figure for (method, name), figure in read_side(CI).figures.items()}
    rounding = {name: rng.normal(0, 1e-3, len(MACHINES)) for name in figures}
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = []
    for number in range(runs):
        machine = number % len(MACHINES)
        rows.append(
            Row(
                id=f"run{number}",
                created=(start + timedelta(hours=4 * number)).isoformat(),
                commit=f"{rng.integers(1 << 62):016x}{number:024x}",
                link=f"https://ci.example/runs/{number}",
                study="ci",
                machine=f"{machine:04x}ab12cd34",
                machine_name=MACHINES[machine],
                verdict="fine",
                figures={
                    name: [float(v) for v in _values(name, figure, number / runs, rounding[name][machine], rng)]
                    for name, figure in figures.items()
                },
            )
        )
    for row in rows[-len(MACHINES) :]:
        row.figures["dense flops.train_per_token"] = [1.03 * row.figures["dense flops.train_per_token"][0]]
        row.verdict, row.findings = "regressed", ["dense flops.train_per_token: changed"]
    return rows


def _values(name: str, figure: Interval, through: float, rounding: float, rng: np.random.Generator) -> list[float]:
    """The value, and its interval where it has one, as share `through` of the history."""
    factor = 1.0
    if "loss" in name or "speed.train_step" in name:
        factor += rounding
    if "speed.train_step" in name:
        factor += rng.normal(0, 0.02)
    if through >= 0.8 and name.startswith("mod ") and "loss" in name:
        factor *= 1.005
    if through >= 0.8 and name == "moe speed.train_step_over_dense":
        factor *= 1.08
    return [factor * value for value in (figure.value, *(figure.ends or ()))]
