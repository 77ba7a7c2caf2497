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
from bench.records.packed import find_records, is_file
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

    Raises UserError if there is none, or several.
    """
    folder = Path(name)
    if is_file(folder / "record.json"):
        return folder
    below = [record.parent for record in find_records(folder if folder.is_dir() else results)]
    found = below if folder.is_dir() else [run for run in below if run.name == name]
    if len(found) == 1:
        return found[0]
    whole = [run for run in found or below if (run / WEIGHTS).is_file()]
    choice = ", ".join(str(run) for run in whole[:12]) or "none yet: python -m bench +method=mod makes some"
    raise UserError(f"{name!r} does not name one run. Choose from {choice}.")


def load_run(folder: Path) -> TrainedRun:
    """Rebuild the model of the run in `folder` from its record and weights, ready to evaluate.

    Raises UserError if a file is missing or damaged, or if the files do not belong together.
    """
    try:
        return _load(folder)
    except UserError as error:
        if str(folder) in str(error):
            raise
        raise UserError(f"{folder / 'record.json'}: {error}") from error
    except Exception as error:  # a record may name any method and any shape
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{folder / 'record.json'} describes no model that this bench can build "
            f"({type(error).__name__}: {reason}). It was changed, or written by other code: train the run again."
        ) from error


def _load(folder: Path) -> TrainedRun:
    record = load_record(folder / "record.json")
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds a record but no {WEIGHTS}. Train it again: {record.command}")
    try:
        config = validated(record.config)
    except UserError as error:
        raise UserError(f"{folder / 'record.json'} has an invalid configuration: {error}") from error
    if not config.method.name.isidentifier():  # part of a module's name
        raise UserError(f"{folder / 'record.json'}: method.name={config.method.name!r} is not the name of a method.")
    tokenizer = load_tokenizer(config.data.tokenizer, folder)
    if tokenizer.vocab_size != record.model.vocab_size:
        raise UserError(
            f"{folder} has a tokenizer of {tokenizer.vocab_size:,} tokens and a record of {record.model.vocab_size:,}. "
            "They do not belong together: train the run again."
        )
    tensors = read_weights(path)
    _check_size(path, config.model.n_layers * config.method.layers <= len(tensors))
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite. The run diverged, or the file is damaged.")
    planned = plan(config, record.model.vocab_size)
    _check_size(path, planned.count.params_total <= sum(tensor.numel() for tensor in tensors.values()))
    shape = planned.model
    model = build_model(shape, config.method, record.model.vocab_size)
    load_weights(model, tensors, path)
    return TrainedRun(record, model.eval(), tokenizer)


def _check_size(path: Path, fits: bool) -> None:
    """Checked before a model is built, which with a wrong record could take all memory."""
    if not fits:
        raise UserError(f"{path} does not fit its record, which describes a larger model. Train the run again.")
