"""Checkpoints: weights, optimiser state and random state in safetensors, the counters in a small JSON.

The JSON is written last and names its tensors, so a kill at any moment leaves the previous checkpoint or the new one,
never half of either. Every file has a checksum: its own in the JSON, that of the log in the JSON too, and that of the
tensors among themselves, so a bit that flips on the disk is noticed.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.config.identity import digest
from bench.errors import UserError
from bench.records.files import write_atomically

_INDEX = "checkpoint.json"
LOG = "steps.csv"


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
    """Write a safetensors file, completely or not at all: a full disk raises UserError and leaves no file.

    Its metadata holds the checksum that `read_tensors` compares.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    try:
        save_file(tensors, temporary, {"format": "pt", "crc32": _checksum(tensors)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error}. Free some space or set results_dir to another folder."
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `save_tensors` wrote. Raises OSError or SafetensorError, the latter too if its checksum is not its own."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        expected = (file.metadata() or {}).get("crc32")
    if expected not in (None, _checksum(tensors)):  # None: written before bench recorded it
        raise SafetensorError("its checksum is not that of its tensors")
    return tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 over names, types, shapes and bytes."""
    checksum = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def save(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, counters: dict[str, Any], owner: Owner
) -> None:
    """Write a checkpoint of `model` and `optimiser` into `folder`, replacing the previous one.

    `steps.csv` in `folder` must be flushed. counters: the state of the loop: `step`, `flops` and
    `seconds` so far, the `first` loss, the last `losses`, and the `best` mean of as many.
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
    index = {**counters, **asdict(owner), "tensors": path.name, "log": _log(folder)}
    write_atomically(folder / _INDEX, json.dumps(index | {"digest": digest(index)}, indent=2) + "\n")
    for old in folder.glob("checkpoint-*.safetensors"):
        if old != path:
            old.unlink()


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def _log(folder: Path, size: int | None = None) -> list[int] | None:
    """Size in bytes and CRC-32 of `steps.csv`, or of its first `size` bytes; None without that file."""
    path = folder / LOG
    if not path.exists():
        return None
    content = path.read_bytes()[:size]
    return [len(content), zlib.crc32(content)]


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
        if stored.pop("digest", None) not in (None, digest(stored)):  # None: written before bench recorded it
            raise ValueError("its digest is not its own")
        if (log := stored.get("log")) is not None and _log(folder, log[0]) != log:
            raise ValueError(f"{LOG} is not the log that it continues")
        tensors = read_tensors(folder / stored["tensors"])
        if stored["step"] != _optimiser_steps(tensors, stored["step"]):
            raise ValueError("its step is not that of its optimiser")
        random_state = tensors["random.cpu"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{index} or a file that it names is damaged ({_reason(error)}). Delete {folder} to train from the start."
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


def _optimiser_steps(tensors: dict[str, Tensor], default: int) -> int:
    """Updates that the optimiser has made, by its own count."""
    steps = [int(value) for name, value in tensors.items() if name.startswith("optimiser.step.")]
    return max(steps, default=default)


def _counters(stored: dict[str, Any]) -> dict[str, Any]:
    """The state of the loop as plain finite numbers; raises KeyError, TypeError or ValueError for anything else."""
    numbers = {"step": int(stored["step"]), "flops": float(stored["flops"]), "seconds": float(stored["seconds"])}
    losses = [float(loss) for loss in stored["losses"]]
    if not all(math.isfinite(value) and value >= 0 for value in (*numbers.values(), *losses)):
        raise ValueError("a counter is negative or not finite")
    known = {key: None if stored.get(key) is None else float(stored[key]) for key in ("first", "best")}
    return {**numbers, "losses": losses, **known}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a finished run; raises UserError if the file is missing or damaged."""
    try:
        return read_tensors(path)
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
