"""The end of a study of bars: its record, its page, and each bar told on the terminal."""

from __future__ import annotations

import datetime
from pathlib import Path

import torch

from bench.config.schema import ModelConfig, RunConfig
from bench.measure.machine import environment, git_commit
from bench.records.record import DecodePoint
from bench.records.targets import Bar, Bars, save_bars
from bench.report.targets import write_targets


def model_shape(model: ModelConfig) -> dict[str, int]:
    """What a record says of the models that were timed."""
    return {
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "context": model.context,
    }


def finish(
    study: str,
    config: RunConfig,
    command: str,
    device: torch.device,
    shape: dict[str, int],
    bars: list[Bar],
    decode: dict[str, list[DecodePoint]] | None = None,
) -> int:
    """Keep and tell what was measured; 0, or 1 where a bar is missed."""
    record = Bars(
        study=study,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=git_commit(),
        command=command,
        environment=environment(device),
        shape=shape,
        rounds=config.study.rounds if config.study else 0,
        bars=bars,
        decode=decode,
    )
    save_bars(record, Path(config.results_dir) / study)
    print(f"{record.told()}\nreport: {write_targets(record, Path(config.reports_dir))}")
    return 0 if record.met else 1
