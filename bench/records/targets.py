"""Measured figures and their targets, as a study writes them: `results/<study>/targets.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.records.files import StrictModel, load
from bench.records.record import DecodePoint, Environment, Timing

FILE = "targets.json"


class Target(StrictModel):
    """One measured figure and its target: the most it may be, or the least."""

    figure: str
    value: Timing = Field(description="with the 95 % interval of its median over rounds")
    unit: str | None = Field(None, description="of value and limit; absent: a ratio")
    at_most: float | None = None
    at_least: float | None = None
    step_seconds: Timing | None = None
    flop_ratio: float | None = Field(None, description="counted FLOPs of a step over the dense baseline's")

    @property
    def met(self) -> bool:
        return (self.at_most is None or self.value.median <= self.at_most) and (
            self.at_least is None or self.value.median >= self.at_least
        )

    @property
    def limit(self) -> str:
        """The target in words."""
        limit = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{limit} {self.unit}" if self.unit else limit


class Targets(StrictModel):
    """A study's figures, with where and how they were taken."""

    study: str
    created: str
    git_commit: str | None = None
    command: str
    environment: Environment
    shape: dict[str, int] = Field(description="of the model, or of what else was measured")
    rounds: int
    targets: list[Target]
    decode: dict[str, list[DecodePoint]] | None = Field(
        None, description="method -> its points; the dense baseline has its own"
    )

    @property
    def met(self) -> bool:
        return all(target.met for target in self.targets)

    @property
    def subject(self) -> str:
        """What was measured, in words."""
        shape = self.shape
        if "n_layers" in shape:
            return f"{shape['n_layers']} layers × {shape['d_model']} wide, {shape['n_heads']} heads"
        return ", ".join(f"{size:,} {name}" for name, size in shape.items())

    def summary(self) -> str:
        """One line per target, for the terminal."""
        return "\n".join(
            f"{'met   ' if target.met else 'MISSED'} {target.figure}: {target.value.median:.3f} "
            f"({target.value.low:.3f} to {target.value.high:.3f}, {target.value.samples} rounds), {target.limit}"
            for target in self.targets
        )


def load_targets(path: Path) -> Targets:
    """Read `targets.json`; raises UserError if it is not one."""
    return load(path, Targets, "a study of targets", "Delete it and run the study again.")
