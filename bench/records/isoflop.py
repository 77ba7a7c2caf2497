"""The file of an isoFLOP study, `results/<study>/isoflop.json`, next to the records of its runs.

The records hold the results. This file holds the purpose of each run, the chosen learning rates, the number of
concurrent runs, and the step times.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.records.files import StrictModel, load
from bench.records.record import Environment, Timing

FILE = "isoflop.json"
EARLIER = "earlier_studies.json"  # next to it, if the question was studied before
_UNCOUNTED = 0.01  # of the training seconds: one step per session is not counted where a run resumes


class Tried(StrictModel):
    """One run of the learning-rate sweep."""

    n_layers: int
    d_model: int
    lr_at_128: float
    seed: int = 0
    val_loss_nats: float | None = Field(None, description="absent if the run diverged")


class LearningRate(StrictModel):
    """A method's learning-rate rule: lr_at_128 x sqrt(128 / d_model)."""

    lr_at_128: float
    status: str = Field(
        description="fitted | edge (of the rates that trained well) | tried (fit rejected: the best rate) | given"
    )
    tried: list[Tried]

    @property
    def steady(self) -> list[Tried]:
        """The runs at rates below the lowest at which one diverged."""
        diverged = min((each.lr_at_128 for each in self.tried if each.val_loss_nats is None), default=math.inf)
        return [each for each in self.tried if each.lr_at_128 < diverged]


class Packing(StrictModel):
    """Concurrent runs, and the FLOP/s of all of them together."""

    workers: int
    threads: int
    flops_per_second: float


class Timed(StrictModel):
    """A training step of one method and shape, alternating with dense of that shape and nothing else."""

    method: str
    n_layers: int
    d_model: int
    step_tokens: int
    step_flops: float
    step_seconds: Timing
    over_dense: Timing | None = Field(None, description="step seconds over those of dense of the same shape")


class Covariate(StrictModel):
    """Spearman's rank correlation of being processed with one property of the token, over validation tokens."""

    layer: str = Field(description="a layer's number, or `all`: the number of routed layers that process the token")
    covariate: str
    given: str = Field(description="none, or the properties that were controlled for")
    rho: float
    low: float | None = Field(None, description="lower end of the 95 % interval over documents; absent below 5 of them")
    high: float | None = None
    p: float | None = Field(None, description="two-sided, of the same jackknife; Holm-adjusted over the model's tests")


class Profile(StrictModel):
    """Mean share of routed layers that process a token, over a part of the tokens."""

    at: float | None = Field(None, description="mean of the property over those tokens")
    share: float
    low: float | None = None
    high: float | None = None
    tokens: int


class DepthUse(StrictModel):
    layers: list[int]
    correlations: list[Covariate]
    profiles: dict[str, list[Profile]] = Field(description="property -> profile over ten quantiles of the tokens")
    by_kind: dict[str, Profile]


class ExpertUse(StrictModel):
    layer: int
    share_by_kind: list[list[float]] = Field(description="[kind][expert]: share of the kind's choices")
    information: float = Field(description="mutual information of expert and kind over the entropy of kinds, less bias")
    information_low: float | None = Field(None, description="lower end of its 95 % interval over documents")
    information_high: float | None = None
    together: list[list[float]] = Field(description="[expert][other]: share of the other choices of an expert's tokens")


class Settling(StrictModel):
    """Router decisions during training compared with the final ones, on the same tokens."""

    share: float = Field(description="of the training budget")
    depth: float | None = Field(None, description="of the finally processed tokens, those processed already")
    depth_low: float | None = Field(None, description="lower end of its 95 % interval over documents")
    depth_high: float | None = None
    experts: float | None = Field(None, description="of the finally chosen experts, those chosen already")
    experts_low: float | None = None
    experts_high: float | None = None


class TokenStudy(StrictModel):
    """What routers do with each token of the validation text. Losses and entropies are the dense baseline's."""

    tokens: int
    documents: int
    statistic: str = Field(description="behind intervals and p; another version of bench may use another")
    twin: str = Field(description="run id of the dense model")
    runs: dict[str, str] = Field(description="method -> run id")
    kinds: list[str]
    depth: dict[str, DepthUse]
    experts: dict[str, list[ExpertUse]]
    settling: dict[str, list[Settling]]
    seeds: dict[str, dict[str, list[Covariate]]] = Field(
        {}, description="method -> run id of another seed -> its correlations over all routed layers"
    )


class Stages(StrictModel):
    """Run ids by purpose."""

    rates: list[str] = []
    grid: list[str] = []
    seeds: list[str] = []
    controls: list[str] = []


class Study(StrictModel):
    """An isoFLOP study. `training_seconds` over `worker_seconds` is the utilisation of the training pool."""

    schema_version: int = 1
    name: str
    created: str
    git_commit: str | None = None
    command: str
    environment: Environment
    methods: list[str] = Field(description="NAME or NAME/VARIANT, dense first")
    budgets: list[float]
    train_tokens: int | None = Field(None, description="length of the training text")
    grid: dict[str, Any] = Field(description="the complete study.grid")
    stages: Stages = Stages()
    missing: int = Field(0, description="runs that were scheduled and had not ended")
    learning_rates: dict[str, LearningRate] = {}
    packings: list[Packing] = Field([], description="measured, the chosen one first")
    training_seconds: float = Field(0.0, description="in training steps, summed over workers")
    worker_seconds: float = Field(0.0, description="wall time of the training pools of all sessions times workers")
    study_seconds: float | None = Field(
        None,
        description="wall time of all sessions: planning, packing, training, step times, tokens; without the start of "
        "Python and the report. Absent if a session did not record it",
    )
    timings: list[Timed] = []
    tokens: TokenStudy | None = None

    def shares(self, recorded: float) -> str:
        """In words: the share of the workers' time spent in training steps, of the pool and of the whole study.

        recorded: seconds of training steps in the runs' records. If they exceed those of the sessions, some sessions
        are missing from this file, and no share is given. Empty if nothing was trained.
        """
        if not self.worker_seconds:
            return ""
        if recorded > (1 + _UNCOUNTED) * self.training_seconds:
            return (
                f"The runs’ records hold {recorded / 60:.0f} minutes of training steps, but the recorded sessions only "
                f"{self.training_seconds / 60:.0f}: some sessions were not recorded completely, so the share "
                "of time spent in training steps is unavailable"
            )
        text = (
            f"{self.training_seconds / self.worker_seconds:.0%} of the training pool’s time was spent in training steps"
        )
        if self.study_seconds is None or not self.packings:
            return f"{text}; the share of the whole study’s time was not recorded"
        available = self.study_seconds * self.packings[0].workers
        if available < self.worker_seconds:
            return f"{text}; the share of the whole study’s time is unavailable: the number of concurrent runs changed"
        return (
            f"{text}, {self.training_seconds / available:.0%} of the whole study’s, with packing, step times and tokens"
        )


class BudgetDifference(StrictModel):
    """Loss of a method's best shape minus dense's at one budget, nats/token, on seeds not used for model selection."""

    budget: float
    minus_dense: float
    stderr: float
    degrees: float = Field(description="of freedom, of stderr")


class StudyDifference(StrictModel):
    """The same, pooled over budgets. The standard errors cover seeds, validation documents and learning rates."""

    method: str
    minus_dense: float
    stderr: float
    degrees: float
    bounded: list[str] = Field(
        [], description="methods whose best shape or learning rate was at an edge: may do better"
    )
    budgets: list[BudgetDifference]


class StudySummary(StrictModel):
    """What a study of the same question adds to a pooled answer, when its runs are no longer kept."""

    created: str
    source_commit: str = Field(description="of this repository, which holds the study's runs")
    machine: str
    differences: list[StudyDifference]
    depth: dict[str, list[Covariate]] = Field({}, description="method -> correlations over all routed layers")


class EarlierStudies(StrictModel):
    """`earlier_studies.json`: studies of the same question, oldest first. Written by `tools.keep_study`."""

    schema_version: int = 1
    studies: list[StudySummary]


def load_earlier(path: Path) -> list[StudySummary]:
    """Read `earlier_studies.json`; empty if there is none. Raises UserError if it is broken."""
    if not path.exists():
        return []
    return load(path, EarlierStudies, "a list of earlier studies", "Restore it from the repository.").studies


def load_study(path: Path) -> Study:
    """Read `isoflop.json`; raises UserError if it is not one."""
    return load(path, Study, "an isoFLOP study", "Delete it and run the study again; finished runs stay.")


def stages_of(folder: Path) -> dict[str, tuple[str, ...]]:
    """Run -> its stages; empty if the folder is no isoFLOP study."""
    found: dict[str, tuple[str, ...]] = {}
    if (folder / FILE).is_file():
        stages = load_study(folder / FILE).stages
        for stage in Stages.model_fields:
            for run in getattr(stages, stage):
                found[run] = (*found.get(run, ()), stage)
    return found
