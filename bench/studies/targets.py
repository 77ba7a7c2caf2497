"""The end of a study with targets: its record, its page, and a line per target on the terminal."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.config.schema import ModelConfig, RunConfig
from bench.formats import now
from bench.measure.machine import environment, git_commit
from bench.records.files import make_folder
from bench.records.record import DecodePoint
from bench.records.targets import FILE, Target, Targets
from bench.report.targets import write_study


def model_shape(model: ModelConfig) -> dict[str, int]:
    """The shape of the timed models, for the record."""
    return {name: getattr(model, name) for name in ("n_layers", "d_model", "n_heads", "context")}


def finish(
    study: str,
    config: RunConfig,
    command: str,
    device: torch.device,
    shape: dict[str, int],
    targets: list[Target],
    decode: dict[str, list[DecodePoint]] | None = None,
) -> int:
    """Save and print the measured figures; returns 0, or 1 where a target is missed."""
    record = Targets(
        study=study,
        created=now(),
        git_commit=git_commit(),
        command=command,
        environment=environment(device),
        shape=shape,
        rounds=config.study.rounds if config.study else 0,
        targets=targets,
        decode=decode,
    )
    path = record.save(make_folder(Path(config.results_dir) / study) / FILE)
    print(f"{record.summary()}\nreport: {write_study(path, Path(config.reports_dir))}")
    return 0 if record.met else 1
