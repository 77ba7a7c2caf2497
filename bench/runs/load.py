"""A finished run, read back: its record, its model and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.config.validate import validated
from bench.data import Tokenizer
from bench.data.tokenizer import load_tokenizer
from bench.errors import UserError
from bench.flops.match import plan
from bench.methods import build_model
from bench.model import Transformer
from bench.records.record import Record, load_record
from bench.train.checkpoint import load_weights, read_weights

WEIGHTS = "model.safetensors"


@dataclass
class TrainedRun:
    """What `load_run` gives."""

    record: Record
    model: Transformer
    tokenizer: Tokenizer


def find_run(name: str, results: Path = Path("results")) -> Path:
    """The folder of a run, given as a path or as a run's id below `results`.

    Raises UserError where there is none, or several.
    """
    folder = Path(name)
    if (folder / "record.json").is_file():
        return folder
    below = [record.parent for record in sorted((folder if folder.is_dir() else results).glob("**/record.json"))]
    found = below if folder.is_dir() else [run for run in below if run.name == name]
    if len(found) == 1:
        return found[0]
    whole = [run for run in found or below if (run / WEIGHTS).is_file()]
    choice = ", ".join(str(run) for run in whole[:12]) or "none yet: python -m bench +method=mod makes some"
    raise UserError(f"{name!r} is not one run. Choose from {choice}.")


def load_run(folder: Path) -> TrainedRun:
    """Rebuild the model of the run in `folder` from its record and weights, ready to evaluate.

    Raises UserError where a file is missing or damaged.
    """
    record = load_record(folder / "record.json")
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds a record but no {WEIGHTS}. Train it again: {record.command}")
    try:
        config = validated(record.config)
    except UserError as error:
        raise UserError(f"{folder / 'record.json'} has a configuration that cannot work: {error}") from error
    tokenizer = load_tokenizer(config.data.tokenizer, folder)
    shape = plan(config, record.model.vocab_size).model
    model = build_model(shape, config.method, record.model.vocab_size)
    load_weights(model, read_weights(path), path)
    return TrainedRun(record, model.eval(), tokenizer)
