"""What the validation leaves on disk: `results/gate_validation/validation.json`.

Each trial ran the ci study with an injected regression, or unchanged, and the gate compared it with a baseline.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.records.files import StrictModel, load, write_atomically
from bench.records.record import Environment

FILE = "validation.json"
SCHEMA_VERSION = 3


class Trial(StrictModel):
    """One ci study and the gate's verdict on it."""

    name: str
    batch: int = Field(description="1 for the first")
    mutant: str | None = Field(None, description="the injected regression in words; absent for an unchanged re-run")
    slows: bool = Field(False, description="the injected regression only slows training steps")
    status: int | None = Field(None, description="the gate's exit status; absent if the study itself failed")
    findings: list[str] = Field(description="the worst few, in words")
    findings_total: int
    slower: bool = Field(False, description="a figure of speed is among the findings")
    speed: dict[str, float] = Field({}, description="`METHOD FIGURE` -> median relative to the baseline's")

    @property
    def flagged(self) -> bool:
        """Whether CI would have failed."""
        return self.status != 0

    @property
    def caught(self) -> bool:
        """Whether the gate caught it, a slow-down by its speed; a study that failed never reached the gate."""
        return self.status in (1, 4) and (self.slower or not self.slows)


class Batch(StrictModel):
    """Trials of one commit on one machine, with a baseline of their own."""

    created: str
    git_commit: str | None = None
    environment: Environment


class Validation(StrictModel):
    """All trials, in as many batches as it took to run them."""

    schema_version: int = SCHEMA_VERSION
    command: str
    side_by_side: int = Field(description="concurrent trials, which compete for the cores")
    judged_by: str | None = Field(None, description="commit of the gate that evaluated the trials")
    batches: list[Batch] = []
    trials: list[Trial] = []

    def of(self, mutated: bool, slows: bool = False) -> list[Trial]:
        """The trials with or without an injected regression; the former by whether it only slows."""
        return [t for t in self.trials if (t.mutant is not None) == mutated and t.slows == slows]


def save_validation(validation: Validation, folder: Path) -> None:
    """Write `validation.json` into `folder`, atomically."""
    write_atomically(folder / FILE, validation.model_dump_json(indent=1, exclude_none=True) + "\n")


def load_validation(path: Path) -> Validation:
    """Read `validation.json`; raises UserError if it is not one."""
    return load(path, Validation, "a validation of the gate", "Delete it and run the command again.", SCHEMA_VERSION)
