"""Studies: fixed sets of runs or measurements, selected by `+study=NAME`, each with its own report page."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

from bench.config.schema import RunConfig
from bench.errors import UserError
from bench.records.lease import lease

# study.name -> the function that runs it, "module:name", loaded when needed; one with a grid is an isoFLOP study
_STUDIES = {
    "ci": "bench.studies.ci:run",
    "decode": "bench.studies.decode:run",
    "step_time": "bench.studies.step_time:run",
    "tuning": "bench.studies.tuning:run",
}
_ISOFLOP = "bench.isoflop.study:run"


def run_study(config: RunConfig, command: str) -> int:
    """Run the study that `config.study` names; returns the exit status."""
    assert config.study is not None
    name = config.study.name
    if config.study.grid is None and config.dry_run:
        raise UserError("dry_run=true plans training runs, and this study has none. Leave it out.")
    if config.study.grid is None and name not in _STUDIES:
        raise UserError(f"study.name={name} is not allowed: it must be one of {', '.join(_STUDIES)}.")
    study = resolve_name(_STUDIES[name] if config.study.grid is None else _ISOFLOP)
    if config.dry_run:
        return study(config, command)
    folder = Path(config.results_dir) / name

    def refuse(holder: str) -> None:
        raise UserError(f"{folder}: {holder} is running this study. Wait for its end, or set results_dir=.")

    with lease(folder, refuse):
        return study(config, command)
