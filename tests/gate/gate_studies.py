"""Hand-made ci studies, so that every verdict can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.ci import FILE, CiStudy
from bench.records.record import Environment, Record, RoutingStatistics

PROCESSES = 8


def machine(name: str = "a CPU") -> Environment:
    """The machine a study ran on."""
    return Environment(
        python="3.11", torch="2.13.0", device="cpu", device_name=name, platform="Linux", threads=1, packages={}
    )


def write_study(folder: Path, record: Record, seed: int = 0, name: str = "ci", place: str = "a CPU") -> Path:
    """A study of dense and mod in `folder`; `seed` draws the speed samples, with 2 % noise."""
    speed: dict[str, dict[str, list[float]]] = {}
    noise = np.random.default_rng(seed)
    runs = {}
    for method, level, figure in (("dense", 1.6, "train_step_over_torch"), ("mod", 0.7, "train_step_over_dense")):
        own = record.model_copy(deep=True)
        own.method, own.run.id, own.environment = method, f"{method}-seed0", machine(place)
        own.config["train"], own.training.steps = {"log_every": 1}, 99
        own.lm_eval = {"bench_copy": {"acc": 0.4, "acc_stderr": 0.05, "chance": 0.25}}
        if method == "mod":
            own.routing = RoutingStatistics(
                predictor_accuracy=0.93, fraction_processed=0.13, fraction_processed_by_layer={"1": 0.12, "3": 0.14}
            )
        runs[method] = own.run.id
        (folder / own.run.id).mkdir(parents=True)
        own.save(folder / own.run.id / "record.json")
        steps = "\n".join(f"{step},{6.0 / step:.6f},{0.002 * (1 - step / 100):.4e}" for step in range(1, 100))
        (folder / own.run.id / "steps.csv").write_text(f"step,loss,lr\n{steps}\n", encoding="utf-8")
        speed[method] = {figure: (level * (1 + 0.02 * noise.standard_normal(PROCESSES))).tolist()}
    study = CiStudy(
        name=name, created=f"2026-11-{1 + seed % 28:02}T00:00:00+00:00", git_commit="abc1234", command="a command",
        environment=machine(place), runs=runs, speed=speed,
    )  # fmt: skip
    study.save(folder / FILE)
    return folder


def change(folder: Path, run: str, **parts: Any) -> None:
    """Set fields of a run's record, by path with `__` between: quality__val_loss_nats=2.5; None deletes."""
    path = folder / run / "record.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in parts.items():
        *inner, last = name.split("__")
        part = content
        for key in inner:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def change_ci(folder: Path, **parts: Any) -> None:
    """Set fields of `ci.json`."""
    path = folder / "ci.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | parts), encoding="utf-8")


def change_steps(folder: Path, run: str, old: str, new: str) -> None:
    """Change a run's log of steps in one place."""
    path = folder / run / "steps.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def change_speed(folder: Path, method: str, factor: float) -> None:
    """Multiply the speed samples of a method."""
    path = folder / "ci.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for figure, samples in content["speed"][method].items():
        content["speed"][method][figure] = [factor * sample for sample in samples]
    path.write_text(json.dumps(content), encoding="utf-8")
