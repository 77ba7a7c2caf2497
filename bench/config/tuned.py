"""A scale's tuned settings: at its budget, each method has its own best shape, batch size and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from bench.config.identity import MethodId
from bench.config.schema import BaselineConfig, RunConfig, TunedConfig

_MODEL = {"n_layers", "d_model", "n_heads"}
_GIVEN = {f"model.{name}" for name in (*_MODEL, "n_kv_heads", "d_ff")} | {"train.lr"}
_GIVEN |= {f"train.{each.name}" for each in fields(TunedConfig) if each.name not in _MODEL}


def apply_tuned(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """`config` with its method's own tuned settings, and the scale's as those of its dense baseline.

    A shape, batch size or learning rate among `overrides` holds for both, which are then equal. So they are under a
    contract that holds something else than training FLOPs equal, and in a study, which tunes for itself.
    """
    own, config = _own(config), replace(config, tuned={})
    given = any(word.lstrip("+").partition("=")[0] in _GIVEN for word in overrides)
    if own is None or given or config.study is not None or config.contract.name != "train_flops":
        return config
    values = asdict(own)
    model = replace(config.model, **{name: values.pop(name) for name in _MODEL})
    baseline = BaselineConfig(config.model, config.train)
    return replace(config, model=model, train=replace(config.train, **values), baseline=baseline)


def _own(config: RunConfig) -> TunedConfig | None:
    method = MethodId.of(config.method)
    return config.tuned.get(str(method)) or config.tuned.get(method.name)
