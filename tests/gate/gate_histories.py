"""Histories of a gate, made up."""

from __future__ import annotations

from bench.gate.history import Row


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
