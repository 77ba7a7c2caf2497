"""What a run was configured to do: its settings in dotted keys, and where methods differ in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

CONTRACTS = {
    "train_flops": "at equal training FLOPs",
    "forward_flops": "at equal FLOPs per forward pass",
    "tokens": "at equal training tokens",
    "active_params": "at equal active parameters",
    "total_params": "at equal total parameters",
    "wall_clock": "in equal training time",
}


def contract_words(contract: str) -> str:
    """What the contract holds equal, to stand in a sentence."""
    return CONTRACTS.get(contract, f"under the contract {contract}")


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys: {"train": {"lr": 1}} is {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def varying_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of flat settings that do not have one value, or are not there, in all of `settings`."""
    keys = {key for each in settings for key in each}
    return sorted(key for key in keys if len({written(each.get(key, "")) for each in settings}) > 1)


def written(value: Any) -> str:
    """A setting as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def shared_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the method and the seed, which differ between runs of a comparison."""
    return {key: value for key, value in config.items() if key not in ("method", "seed")}
