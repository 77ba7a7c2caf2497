"""Records made by hand, so that every figure of a report can be checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records.record import (
    Causality,
    Environment,
    Flops,
    Memory,
    Model,
    Passage,
    Quality,
    Record,
    RoutingDetail,
    RoutingStatistics,
    Run,
    Speed,
    Timing,
    Training,
    load_record,
)

DOCUMENT_TOKENS = [100, 250, 400, 150, 300]


def make_record(method: str = "dense", seed: int = 0, loss: float = 2.0, **changes: Any) -> Record:
    """A finished, audited record; `changes` replace whole parts, or `name`, `comparison_hash`, `status`, `run_id`."""
    run = Run(
        id=changes.pop("run_id", f"{method}-{changes.get('variant') or ''}-s{seed}"),
        name=changes.pop("name", "tiny"),
        created=changes.pop("created", "2026-11-01T00:00:00Z"),
        git_commit="abc1234",
        config_hash=f"{method}{seed}",
        comparison_hash=changes.pop("comparison_hash", "c0ffee"),
        seed=seed,
        status=changes.pop("status", "finished"),
    )
    routed = method != "dense"
    parts: dict[str, Any] = {
        "contract": "train_flops",
        "config": {
            "method": {
                "name": method,
                "variant": changes.get("variant"),
                "depth": {"capacity": 0.125} if routed else None,
            },
            "data": {"name": "kjv"},
            "seed": seed,
        },
        "command": f"python -m bench +method={method} seed={seed}",
        "environment": Environment(
            python="3.11", torch="2.13.0", device="cpu", device_name="a CPU", platform="Linux", threads=2, packages={}
        ),
        "model": Model(
            params_total=1_000_000,
            params_active=900_000,
            n_layers=4,
            d_model=64,
            n_heads=4,
            d_ff=192,
            context=128,
            vocab_size=256,
        ),
        "flops": Flops(
            forward_per_token=1e6,
            train_per_token=3e6,
            train_total=3e9,
            forward_analytic=1e9,
            forward_fvcore=1.0005e9,
            forward_torch=1e9,
            budget=3e9,
            forward_per_token_causal=0.9e6,
            six_n_per_token=5.4e6,
            moved_bytes_per_token=100.0,
            parts={"feed-forward": 6e5, "lm head": 4e5},
        ),
        "training": Training(
            tokens=1000, steps=10, seconds=20.0, final_loss=loss, lr=4e-3, lr_rule="one rule", dtype="float32"
        ),
        "quality": Quality(
            val_loss_nats=loss,
            val_loss_nats_stderr=0.02,
            val_bpb=loss / 0.6931,
            val_bpb_stderr=0.03,
            tokens_evaluated=1200,
            documents_evaluated=5,
        ),
        "causality": Causality(max_abs_logit_change=1e-6, tolerance=1e-4, passed=True),
        "routing": RoutingStatistics(predictor_accuracy=0.96) if routed else None,
        "speed": Speed(
            train_step_seconds=Timing(median=0.5, low=0.4, high=0.6, samples=8),
            train_tokens_per_second=2000.0,
            train_speedup_ideal=1.78 if routed else None,
            train_speedup_realised=Timing(median=1.5, low=1.4, high=1.6, samples=8) if routed else None,
        ),
        "memory": Memory(peak_bytes=800 * 2**20 if routed else 1000 * 2**20),
    }
    return Record(run=run, method=method, **(parts | changes))


def save(results: Path, record: Record, nats: list[float] | None = None) -> Path:
    """Write a record with its files below `results`; `nats` are its documents' total losses."""
    folder = results / "tiny" / record.run.id
    folder.mkdir(parents=True, exist_ok=True)
    record.save(folder / "record.json")
    steps = pd.DataFrame({"step": range(1, 11), "tokens": range(100, 1100, 100), "lr": 1e-3, "grad_norm": 1.0})
    steps["train_flops"], steps["seconds"], steps["loss"] = (
        steps["tokens"] * 3e6,
        steps["step"] * 2.0,
        6.0 / steps["step"],
    )
    if record.method != "dense":
        steps["predictor_accuracy"] = 0.9
        detail = RoutingDetail(
            passage=Passage(
                tokens=["<b>", " $x", "\n", "&"],
                layers=[1, 3],
                processed=[[True, False, False, True], [False, True, False, False]],
                weights=[[0.1, 0.2, 0.3, 0.4], [1.5, -0.5, 0.0, 0.25]],
            ),
            weight_edges=[0.0, 1.0, 2.0],
            weight_counts={"selected": [1, 5], "skipped": [9, 2]},
            expert_load={"0": [0.5, 0.25, 0.25], "2": [0.2, 0.4, 0.4]},
            n_noop=1,
        )
        (folder / "routing.json").write_text(detail.model_dump_json(), encoding="utf-8")
    steps.to_csv(folder / "steps.csv", index=False)
    if nats:
        documents = {"document": [f"d{n}" for n in range(5)], "tokens": DOCUMENT_TOKENS, "bytes": DOCUMENT_TOKENS}
        pd.DataFrame(documents | {"nats": nats}).to_csv(folder / "documents.csv", index=False)
    return folder


def change_records(folder: Path, pattern: str, change: Callable[[Record], object]) -> None:
    """Pass the record of every run whose id matches through `change`, and save what it leaves."""
    paths = list(folder.glob(f"{pattern}/record.json"))
    assert paths
    for path in paths:
        record = load_record(path)
        change(record)
        record.save(path.parent / "record.json")
