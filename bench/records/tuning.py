"""The study that tunes each method's depth, width, batch size and learning rate: `results/<study>/tuning.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.records.files import StrictModel, load
from bench.records.record import Environment

FILE = "tuning.json"


class Settings(StrictModel):
    """One place on the four ladders."""

    n_layers: int
    d_model: int
    n_heads: int
    batch_size: int
    lr_at_128: float


class Candidate(StrictModel):
    """A setting that was run with several seeds. Each list holds validation losses in nats/token."""

    settings: Settings
    params_total: int
    params_active: int
    tokens: int
    selection: list[float] = Field(description="of the seeds that chose among the candidates")
    fresh: list[float] = Field(default=[], description="of seeds that chose nothing")


class Tuned(StrictModel):
    """The search of one method. candidates: best first, by the mean of `selection`."""

    searched: int = Field(description="settings that were run")
    diverged: int
    at_edge: list[str] = Field(description="settings of the best candidate at the end of their ladder")
    candidates: list[Candidate]


class Tuning(StrictModel):
    """The study, with where and how it was run."""

    schema_version: int = 1
    name: str
    created: str
    git_commit: str | None = None
    command: str
    environment: Environment
    budget: float = Field(description="training FLOPs of each run")
    depths: list[int]
    widths: list[list[int]] = Field(description="each a width and its number of heads")
    batch_sizes: list[int]
    rates: list[float] = Field(description="values of train.lr_at_128")
    methods: dict[str, Tuned]


def load_tuning(path: Path) -> Tuning:
    """Read `tuning.json`; raises UserError if it is not one."""
    return load(path, Tuning, "a tuning study", "Delete it and run the study again.")
