"""Routing that has collapsed: experts that get no tokens, routed blocks that process none or all."""

from __future__ import annotations

from collections.abc import Iterator

from bench.formats import percent
from bench.report.load import RunFiles

_IDLE = 0.01  # of the planned share: an expert or a block with less does nothing
_ALL = 0.999  # of the tokens: a block that processes more skips none


def degenerate(run: RunFiles) -> str | None:
    """`degenerate routing: 2 of 16 experts dead in layer 3`, on validation text; None if every router works."""
    faults = [*_dead_experts(run), *_blocks(run)]
    return f"degenerate routing: {', '.join(faults)}" if faults else None


def _dead_experts(run: RunFiles) -> Iterator[str]:
    if run.routing is None or run.routing.expert_load is None:
        return
    for layer, load in run.routing.expert_load.items():
        experts = len(load) - run.routing.n_noop
        idle = [share < _IDLE / len(load) for share in load]
        if any(idle[:experts]):
            yield f"{sum(idle[:experts])} of {experts} experts dead in layer {layer}"
        if run.routing.n_noop and all(idle[experts:]):  # null experts are all the same: one of them is enough
            yield f"no token skips layer {layer}"


def _blocks(run: RunFiles) -> Iterator[str]:
    routing = run.record.routing
    if routing is None or routing.fraction_processed_by_layer is None:
        return
    depth = (run.record.config.get("method") or {}).get("depth") or {}
    capacity = depth.get("capacity", 1.0)  # of a method with a module of its own: unknown
    for layer, processed in routing.fraction_processed_by_layer.items():
        if processed < _IDLE * capacity or (processed > _ALL and depth and capacity < 1):
            planned = f" (planned: {percent(capacity)})" if depth else ""
            yield f"layer {layer} processes {percent(processed)} of tokens{planned}"
