"""A run, solved and named before it starts, and its record if it has finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.config.identity import config_hash, run_folder, run_title
from bench.config.schema import RunConfig
from bench.data.corpus import corpus_fingerprint
from bench.data.tokenizer import vocabulary_size
from bench.errors import UserError
from bench.flops.match import Plan, dense_baseline, plan
from bench.records.packed import is_file
from bench.records.record import Record, load_record

_FEWEST_STEPS = 5  # from so many on, the whole number nearest to a budget is within 10 % of it
_MISS_AT_MOST = 0.5 / _FEWEST_STEPS


@dataclass(frozen=True)
class PreparedRun:
    """What a run will be, where it is written, and the dense baseline that it is compared with."""

    config: RunConfig
    hash: str  # of the configuration
    folder: Path
    vocab_size: int  # that the plan is for
    plan: Plan
    baseline: PreparedRun | None  # None: this is the dense baseline

    @property
    def title(self) -> str:
        return run_title(self.config)

    def with_vocabulary(self, vocab_size: int) -> PreparedRun:
        """The same run planned for another vocabulary: a BPE trained on little text is smaller than configured."""
        return self if vocab_size == self.vocab_size else prepare_run(self.config, vocab_size)

    def check_whole_steps(self) -> None:
        """Raise UserError if the whole steps of the plan end too far from the budget for a contract to hold."""
        train, miss = self.config.train, self.plan.miss
        timed = self.config.contract.name == "wall_clock" and self.baseline is not None
        if timed or miss <= _MISS_AT_MOST:
            return
        rows = int(train.batch_size * self.plan.budget_flops / (_FEWEST_STEPS * self.plan.step_flops))
        fewer = f", or lower train.batch_size from {train.batch_size} to {rows}" if rows else ""
        raise UserError(
            f"train.budget_flops={train.budget_flops:.3g} is not held by whole steps: the nearest number of them for "
            f"{self.title}, {self.plan.steps}, misses it by {miss:.0%} ({_MISS_AT_MOST:.0%} is allowed). Raise it to "
            f"{_FEWEST_STEPS * self.plan.step_flops:.3g}{fewer}."
        )


def prepare_run(config: RunConfig, vocab_size: int | None = None) -> PreparedRun:
    """Solve the contract of `config` and of its baseline; without `vocab_size` for the configured vocabulary.

    Raises UserError as `plan` does.
    """
    if vocab_size is None:
        vocab_size = vocabulary_size(config.data.tokenizer)
    baseline = None if config.method.name == "dense" else prepare_run(dense_baseline(config), vocab_size)
    solved = plan(config, vocab_size)
    return PreparedRun(config, config_hash(config), run_folder(config), vocab_size, solved, baseline)


def again(folder: Path) -> str:
    """What to do, in words, so that the finished run of `folder` is trained once more."""
    if folder.exists():
        return f"set name= to write elsewhere, or delete {folder}"
    return f"set name= to write elsewhere; {folder.name} is packed in {folder.parent}"


def finished(config: RunConfig) -> Record | None:
    """The record of this very configuration, if it has finished. Raises UserError if its text has changed since. A
    record without a fingerprint of its text is used as it is.
    """
    folder = run_folder(config)
    if not is_file(folder / "record.json"):
        return None
    record = load_record(folder / "record.json")
    if record.run.config_hash != config_hash(config):
        return None
    if record.run.corpus_fingerprint not in (None, corpus_fingerprint(config.data)):
        raise UserError(
            f"{folder} was trained on other text: what data={config.data.name} reads has changed since. "
            f"To train it again, {again(folder)}."
        )
    return record
