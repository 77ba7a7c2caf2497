"""Studies: fixed sets of runs or measurements, chosen by `+study=NAME`, each with a report page of its own."""

from __future__ import annotations

from bench.config import RunConfig
from bench.errors import UserError


def run_study(config: RunConfig, command: str) -> int:
    """Run the study that `config.study` names; returns the exit status."""
    assert config.study is not None
    if config.study.name != "step_time":
        raise UserError(f"study.name={config.study.name} is not allowed: it must be one of step_time.")
    from bench.study import step_time

    return step_time.run(config, command)
