"""Checkpoints: weights, optimiser state and random state in safetensors, the counters in a small JSON.

The JSON is written last and names its tensors, so a kill at any moment leaves the previous checkpoint or the new one,
never half of either.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.records.files import write_atomically

_INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Owner:
    """The run that a checkpoint belongs to; no other may resume from it."""

    config_hash: str
    corpus_fingerprint: str


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once; a tied weight has its first name."""
    aliases = dict(model.named_parameters(remove_duplicate=False)).keys() - dict(model.named_parameters()).keys()
    return {name: value for name, value in model.state_dict().items() if name not in aliases}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file, completely or not at all: a full disk raises UserError and leaves no file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error}. Free some space or set results_dir to another folder."
        ) from error


def save(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, counters: dict[str, Any], owner: Owner
) -> None:
    """Write a checkpoint of `model` and `optimiser` into `folder`, replacing the previous one.

    counters: the state of the loop: `step`, `flops` and `seconds` so far, the last `losses`, the `best` mean of them.
    """
    tensors = {f"model.{name}": tensor for name, tensor in weights(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    path = folder / f"checkpoint-{counters['step']}.safetensors"
    save_tensors(tensors, path)
    write_atomically(folder / _INDEX, json.dumps({**counters, **asdict(owner), "tensors": path.name}, indent=2) + "\n")
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink()


def load(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, owner: Owner) -> dict[str, Any] | None:
    """Restore what `save` wrote; returns its counters, or None if there is no checkpoint.

    Raises UserError for a damaged file, or a checkpoint of another configuration or another text.
    """
    index = folder / _INDEX
    if not index.exists():
        return None
    try:
        stored = json.loads(index.read_text(encoding="utf-8"))
        counters, found_hash, text = _counters(stored), stored["config_hash"], stored.get("corpus_fingerprint")
        tensors = load_file(folder / stored["tensors"])
        random_state = tensors["random.cpu"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{index} or its tensors are damaged ({error!r}). Delete {folder} to train from the start."
        ) from error
    remedy = f"Delete {folder} to train from the start, or set name= to write elsewhere."
    if found_hash != owner.config_hash:
        raise UserError(f"{index} belongs to another configuration ({found_hash}, not {owner.config_hash}). {remedy}")
    if text not in (None, owner.corpus_fingerprint):  # None: written before bench recorded it
        raise UserError(f"{index} was trained on other text: it has changed since. {remedy}")
    load_weights(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}, index)
    for name, parameter in model.named_parameters():
        state = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if f"optimiser.{key}.{name}" in tensors:
                state[key] = tensors[f"optimiser.{key}.{name}"].to(parameter.device)
        if state:
            optimiser.state[parameter] = state
    torch.set_rng_state(random_state)
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return counters


def _counters(stored: dict[str, Any]) -> dict[str, Any]:
    """The state of the loop as plain finite numbers; raises KeyError, TypeError or ValueError for anything else."""
    numbers = {"step": int(stored["step"]), "flops": float(stored["flops"]), "seconds": float(stored["seconds"])}
    losses = [float(loss) for loss in stored["losses"]]
    if not all(math.isfinite(value) and value >= 0 for value in (*numbers.values(), *losses)):
        raise ValueError("a counter is negative or not finite")
    return {**numbers, "losses": losses}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a finished run; raises UserError if the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete {path.parent} to train it again.") from error


def load_weights(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put `tensors` into `model`; raises UserError if names or shapes differ."""
    expected = weights(model)
    wrong = [n for n in expected if n not in tensors or tensors[n].shape != expected[n].shape]
    if wrong or len(tensors) != len(expected):
        raise UserError(
            f"{source} does not fit this model (first difference: {(wrong or ['its number of tensors'])[0]})."
        )
    with torch.no_grad():
        for name, target in expected.items():
            target.copy_(tensors[name])


def remove(folder: Path) -> None:
    """Delete the checkpoint of a finished run."""
    (folder / _INDEX).unlink(missing_ok=True)
    for path in folder.glob("checkpoint-*.safetensors"):
        path.unlink()
