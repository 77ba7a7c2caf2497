"""What a study of bars leaves behind: each figure beside the bar it is held to. `results/<study>/bars.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bench.records.files import load, make_folder, write_atomically
from bench.records.record import DecodePoint, Environment, Timing

FILE = "bars.json"


class Bar(BaseModel):
    """One figure and its bar: what the figure may be at most, or has to be at least."""

    model_config = ConfigDict(extra="forbid")

    figure: str
    value: Timing = Field(description="with the 95 % interval of its median over rounds")
    unit: str | None = Field(None, description="of value and limit; absent: a ratio")
    at_most: float | None = None
    at_least: float | None = None
    step_seconds: Timing | None = None
    flop_ratio: float | None = Field(None, description="counted FLOPs of a step over the dense twin's")

    @property
    def met(self) -> bool:
        return (self.at_most is None or self.value.median <= self.at_most) and (
            self.at_least is None or self.value.median >= self.at_least
        )

    @property
    def limit(self) -> str:
        """The bar in words."""
        limit = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{limit} {self.unit}" if self.unit else limit


class Bars(BaseModel):
    """A study's figures, with where and how they were taken."""

    model_config = ConfigDict(extra="forbid")

    study: str
    created: str
    git_commit: str | None = None
    command: str
    environment: Environment
    shape: dict[str, int] = Field(description="of the model, or of what else was measured")
    rounds: int
    bars: list[Bar]
    decode: dict[str, list[DecodePoint]] | None = Field(None, description="method -> its points, the dense twin's too")

    @property
    def met(self) -> bool:
        return all(bar.met for bar in self.bars)

    @property
    def subject(self) -> str:
        """What was measured, in words."""
        shape = self.shape
        if "n_layers" in shape:
            return f"{shape['n_layers']} layers × {shape['d_model']} wide, {shape['n_heads']} heads"
        return ", ".join(f"{size:,} {name}" for name, size in shape.items())

    def told(self) -> str:
        """A line a bar, for the terminal."""
        return "\n".join(
            f"{'met   ' if bar.met else 'MISSED'} {bar.figure}: {bar.value.median:.3f} "
            f"({bar.value.low:.3f} to {bar.value.high:.3f}, {bar.value.samples} rounds), {bar.limit}"
            for bar in self.bars
        )


def save_bars(bars: Bars, folder: Path) -> Path:
    """Write `bars.json` into `folder`, atomically."""
    path = make_folder(folder) / FILE
    write_atomically(path, bars.model_dump_json(indent=2, exclude_none=True) + "\n")
    return path


def load_bars(path: Path) -> Bars:
    """Read `bars.json`; raises UserError where it is not one."""
    return load(path, Bars, "a study of bars", "Delete it and run the study again.")
