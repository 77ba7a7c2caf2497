"""What the experiment on the gate leaves behind: `results/gate_proof/proof.json`.

Regressions planted in copies of the source, and unchanged reruns, each judged by the gate against an unchanged one.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bench.records.files import load, write_atomically
from bench.records.record import Environment

FILE = "proof.json"
SCHEMA_VERSION = 2


class Trial(BaseModel):
    """One ci study and what the gate said of it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    piece: int = Field(description="1 for the first")
    planted: str | None = Field(None, description="in words; absent for an unchanged rerun")
    slows: bool = Field(False, description="only speed can show the plant")
    status: int | None = Field(None, description="the gate's exit status; absent where the study itself broke down")
    findings: list[str] = Field(description="the worst few, in words")
    findings_total: int
    slower: bool = Field(False, description="a figure of speed is among the findings")
    speed: dict[str, float] = Field({}, description="`METHOD FIGURE` -> median over the baseline's")

    @property
    def alarm(self) -> bool:
        """Whether CI would have failed."""
        return self.status != 0

    @property
    def caught(self) -> bool:
        """Whether the gate told, of a slow-down by speed: a study that broke down never came before it."""
        return self.status in (1, 4) and (self.slower or not self.slows)


class Piece(BaseModel):
    """Trials of one commit on one machine, with a baseline of their own."""

    model_config = ConfigDict(extra="forbid")

    created: str
    git_commit: str | None = None
    environment: Environment


class Proof(BaseModel):
    """All trials, made in as many pieces as the command was given."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    study: str
    command: str
    side_by_side: int = Field(description="trials run at once, each the other's load")
    judged_by: str | None = Field(None, description="commit of the gate that judged the trials")
    pieces: list[Piece] = []
    trials: list[Trial] = []

    def of(self, planted: bool, slows: bool = False) -> list[Trial]:
        """The trials with or without a plant; of planted ones, those that slow or those that do not."""
        return [t for t in self.trials if (t.planted is not None) == planted and t.slows == slows]


def save_proof(proof: Proof, folder: Path) -> None:
    """Write `proof.json` into `folder`, atomically."""
    write_atomically(folder / FILE, proof.model_dump_json(indent=1, exclude_none=True) + "\n")


def load_proof(path: Path) -> Proof:
    """Read `proof.json`; raises UserError where it is not one."""
    return load(path, Proof, "a proof of the gate", "Delete it and run the study again.", SCHEMA_VERSION)
