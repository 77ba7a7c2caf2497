"""Studies: fixed sets of runs or measurements, chosen by `+study=NAME`, each with a report page of its own."""

from __future__ import annotations

from importlib import import_module

from bench.config.schema import RunConfig
from bench.errors import UserError

_STUDIES = ("ci", "decode", "step_time")


def run_study(config: RunConfig, command: str) -> int:
    """Run the study that `config.study` names; returns the exit status."""
    assert config.study is not None
    if config.study.grid is not None:
        from bench.isoflop.study import run

        return run(config, command)
    if config.dry_run:
        raise UserError("dry_run=true plans runs, and this study has none: it only measures. Leave it out.")
    if config.study.name not in _STUDIES:
        raise UserError(f"study.name={config.study.name} is not allowed: it must be one of {', '.join(_STUDIES)}.")
    return import_module(f"bench.studies.{config.study.name}").run(config, command)
