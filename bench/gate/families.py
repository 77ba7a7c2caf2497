"""Figures that one cause moves together, so that people read them as one row: functions of each other, terms of one
sum, and points of one curve.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")

# The figure that is shown -> a pattern of those that follow it.
_FAMILIES = {
    r"quality.val_loss_nats": r"quality\.val_(?:bpb|loss)\w*|lm_eval\.bench_heldout\..+"
    r"|routing\.causal_routers\..+\.(?:val_loss_nats|loss_over_topk)",
    r"lm_eval.\1.bits_per_byte": r"lm_eval\.(.+)\.(?:word|byte)_perplexity",
    r"training.final_loss": r"loss_curve\.\d+",
    r"training.lr": r"lr_curve\.\d+",
    r"training.steps": r"training\.tokens|flops\.train_total",
    r"flops.train_per_token": r"flops\.(?:forward|backward|train)_(?!total)\w+|flops\.parts\..+"
    r"|speed\.(?:train|forward)_speedup_ideal|speed\.executed_flops_per_token",
    r"model.params_active": r"flops\.six_n_per_token",
    r"routing.\1": r"routing\.(predictor_accuracy|fraction_processed)_by_layer\..+",
    r"routing.causal_routers.\1.accuracy": r"routing\.causal_routers\.(.+)\.fraction_processed",
    r"speed.decode.\1.kv_cache_held_bytes": r"speed\.decode\.(\d+)\.kv_cache_(?:ratio|bytes)",
}


def leader_of(figure: str) -> str:
    """The figure that `figure` follows; itself where it follows none."""
    for leader, followers in _FAMILIES.items():
        if found := re.fullmatch(followers, figure):
            return found.expand(leader)
    return figure


def fold(
    items: Sequence[_Item], figure: Callable[[_Item], str], same: Callable[[_Item], Hashable]
) -> list[list[_Item]]:
    """Groups of the items whose figures follow one leader and which `same` maps to one value, in order of their first;
    in each, the leader comes first.
    """
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        groups.setdefault((leader_of(figure(item)), same(item)), []).append(item)
    return [sorted(group, key=lambda item: leader_of(figure(item)) != figure(item)) for group in groups.values()]
