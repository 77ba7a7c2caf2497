"""The tables of a comparison: text for people, and the same numbers unrounded for the CSV files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd

from bench.formats import DASH, binary, count, decimal, duration, percent, scaled, signed, significant, span, times
from bench.records.record import Record
from bench.report.differences import Difference, exclusion, figure, middle, sample
from bench.report.load import Group, Method, contract_words, flatten, varying_keys, written
from bench.report.optimal_size import SOURCE, times_optimal, tokens_per_param
from bench.stats.interval import Interval
from bench.stats.verdict import SMALLEST_EFFECT, STRICTER_EFFECT
from bench.web.tables import Table

_RUNS = 200  # in the table without scripts
_SHAPE = {"n_layers", "d_model", "n_heads", "d_ff"}  # as it was solved, where the contract solves it


@dataclass(frozen=True)
class Row:
    """One figure of a record, at a dotted path, in the comparison table."""

    name: str
    path: str
    write: Callable[[float | None], str]


ROWS = [
    Row("Validation loss, nats/token", "quality.val_loss_nats", decimal),
    Row("Validation loss, bits/byte", "quality.val_bpb", decimal),
    Row("Top-k loss, nats/token (non-causal)", "quality.val_loss_nats_noncausal", decimal),
    Row("Parameters", "model.params_total", scaled),
    Row("Active parameters", "model.params_active", scaled),
    Row("Forward FLOPs/token", "flops.forward_per_token", scaled),
    Row("Training tokens", "training.tokens", scaled),
    Row("Steps", "training.steps", count),
    Row("Training FLOPs", "flops.train_total", scaled),
    Row("Training time", "training.seconds", duration),
    Row("Step time", "speed.train_step_seconds.median", duration),
    Row("Training speed-up, realised", "speed.train_speedup_realised.median", times),
    Row("Training speed-up, ideal", "speed.train_speedup_ideal", times),
    Row("Training speed-up at the larger shape, realised", "speed.larger.train_speedup_realised.median", times),
    Row("Training speed-up at the larger shape, ideal", "speed.larger.train_speedup_ideal", times),
    Row("FLOP utilisation", "speed.flop_utilisation", percent),
    Row("Peak memory", "memory.peak_bytes", binary),
    Row("Energy, J/token", "energy.joules_per_token", significant),
    Row("Causal router agreement with top-k", "routing.predictor_accuracy", percent),
    Row("Tokens processed", "routing.fraction_processed", percent),
    Row("Expert load imbalance (sd / mean)", "routing.expert_load_cv", decimal),
    Row("Null expert choices", "routing.noop_fraction", percent),
]


# Of the run with the lowest seed: name, name in the CSV file, value, and how it is written.
_SIZES: list[tuple[str, str, Callable[[Record], float], Callable[[float | None], str]]] = [
    (
        "Training tokens per active parameter",
        "tokens_per_active_param",
        tokens_per_param,
        lambda ratio: decimal(ratio, 2),
    ),
    ("Active parameters over compute-optimal", "params_over_optimal", times_optimal, times),
]


def comparison_table(group: Group, differences: Sequence[Difference]) -> Table:
    """Every method and the dense baseline: the difference in loss with its interval, then every figure."""
    compared = {difference.label: difference for difference in differences}
    labels = [method.label for method in group.methods]
    rows = [["Seeds", *(", ".join(str(run.record.run.seed) for run in method.runs) for method in group.methods)]]
    for name, write in _DIFFERENCES:
        own = [compared.get(label) for label in labels]
        rows.append([name, *(write(each, each.loss) if each and each.loss else DASH for each in own)])
    rows += [[row.name, *(_cell(method, row) for method in group.methods)] for row in ROWS]
    rows += [[name, *(write(of(method.first)) for method in group.methods)] for name, _, of, write in _SIZES]
    rows.append(["Causality audit (largest logit change)", *(_audit_cell(method) for method in group.methods)])
    rows = [row for row in rows if any(cell != DASH for cell in row[1:])]
    caption = (
        f"Compared {contract_words(group.methods[0].first.contract)} (contract {group.methods[0].first.contract}). "
        "Quality uses the causal router: mean over comparable seeds, ± the standard deviation over two seeds or more. "
        f"Other figures are medians over seeds. Compute-optimal: {SOURCE}. {DASH}: not measured or not comparable."
    )
    return Table("comparison", caption, ["", *labels], rows, _comparison_data(group, compared))


def runs_table(groups: Sequence[Group]) -> Table:
    """One row per run, with the reason where its quality is not compared."""
    several = len(groups) > 1
    runs = [(group, method, run) for group in groups for method in group.methods for run in method.runs]
    rows = [
        [
            run.record.run.id,
            *([group.differs or group.comparison_hash] if several else []),
            method.label,
            str(run.record.run.seed),
            run.record.run.status,
            decimal(run.record.quality.val_loss_nats if run.record.quality else None),
            f"no: {reason}" if (reason := exclusion(run.record)) else "yes",
            run.record.run.message or DASH,
        ]
        for group, method, run in runs[:_RUNS]
    ]
    columns = ["run", *["settings"] * several, "method", "seed", "status", "validation loss, nats/token",
               "quality compared", "message"]  # fmt: skip
    records = [flatten(run.record.model_dump(mode="json", exclude={"config"})) for _, _, run in runs]
    caption = "Every run. Only this table shows losses that are not compared."
    if len(runs) > _RUNS:
        caption = f"The first {_RUNS} of {count(len(runs))} runs; tables/runs.csv has all."
    return Table("runs", caption, columns, rows, pd.DataFrame(records), folded=True)


def flops_table(group: Group) -> Table:
    """The three independent counts of one forward pass, and their largest disagreement."""
    rows, data = [], []
    for method in group.methods:
        flops = max((run.record.flops for run in method.runs), key=lambda flops: _disagreement(flops.model_dump()))
        counts = [flops.forward_analytic, flops.forward_fvcore, flops.forward_torch]
        apart = _disagreement(flops.model_dump())
        others = [scaled(flops.forward_per_token_causal), scaled(flops.six_n_per_token)]
        moved = scaled(flops.moved_bytes_per_token, "B")
        rows.append([method.label, *map(count, counts), significant(apart, 2), *others, moved])
        data.append({"method": method.label, "max_relative_difference": apart} | flops.model_dump(exclude={"parts"}))
    columns = [
        "method",
        "analytic",
        "fvcore",
        "torch",
        "largest relative difference",
        "forward/token, causal-halved",
        "6N/token, training",
        "bytes/token moved by routing",
    ]
    caption = (
        f"FLOPs of one forward pass of the audited batch, counted in three ways; a multiply-add is 2 FLOPs (contract "
        f"{group.methods[0].first.contract}). Shown is the seed with the largest difference."
    )
    return Table("flops", caption, columns, rows, pd.DataFrame(data))


def parts_table(group: Group) -> Table:
    """Forward FLOPs/token, a row per part of the model."""
    parts = list(dict.fromkeys(part for method in group.methods for part in method.first.flops.parts))
    shares = {method.label: method.first.flops.parts for method in group.methods}
    rows = [[part, *(scaled(shares[label].get(part)) for label in shares)] for part in parts]
    data = [{"part": part} | {label: shares[label].get(part) for label in shares} for part in parts]
    caption = f"Forward FLOPs/token by part of the model (contract {group.methods[0].first.contract})."
    return Table("flop_parts", caption, ["part", *shares], rows, pd.DataFrame(data), folded=True)


def method_settings_table(group: Group) -> Table:
    """The settings in which the methods differ."""
    settings = {}
    for method in group.methods:
        config, solved = method.first.config, method.first.model.model_dump(include=_SHAPE)
        parts = {"model": (config.get("model") or {}) | solved, "train": config.get("train") or {}}
        settings[method.label] = flatten((config.get("method") or {}) | parts)
    keys = varying_keys(list(settings.values()))
    rows = [[key, *(written(each[key]) if key in each else DASH for each in settings.values())] for key in keys]
    columns = ["setting", *settings]
    caption = "Settings in which the methods differ: their own, the shape, and batch and rate where each was tuned."
    return Table("method_settings", caption, columns, rows, pd.DataFrame(rows, columns=columns), text=True)


def versions_table(group: Group) -> Table:
    """Machine and versions: each distinct value, which shows a mixture of machines."""
    keys: dict[str, list[str]] = {}
    for run in group.runs:
        environment = run.record.environment
        values = flatten(environment.model_dump(exclude={"packages"}, exclude_none=True)) | environment.packages
        for key, value in (values | {"git commit": run.record.run.git_commit or DASH}).items():
            keys.setdefault(key, [])
            if str(value) not in keys[key]:
                keys[key].append(str(value))
    rows = [[key, ", ".join(values)] for key, values in keys.items()]
    caption, data = "Machine and versions of all runs.", pd.DataFrame(rows, columns=["name", "value"])
    return Table("versions", caption, ["", "value"], rows, data, text=True)


def _pooled(method: Method, path: str) -> tuple[float | None, float | None]:
    """A figure over seeds: quality as mean and standard deviation over comparable runs, the rest as the median."""
    if not path.startswith("quality."):
        return middle(method.runs, path), None
    values = [value for run in method.comparable if (value := figure(run.record, path)) is not None]
    return (fmean(values) if values else None), (stdev(values) if len(values) > 1 else None)


def _cell(method: Method, row: Row) -> str:
    value, spread = _pooled(method, row.path)
    return row.write(value) if spread is None else f"{row.write(value)} ± {row.write(spread)}"


def loss_cell(difference: Difference | None) -> str:
    """The difference in loss and its interval in brackets."""
    if difference is None or difference.loss is None:
        return DASH
    loss = difference.loss
    return f"{signed(loss.value)} ({span(loss.low, loss.high, signed)})"


# Rows of the comparison table on the difference in loss: name, and its cell where there is one.
_DIFFERENCES: list[tuple[str, Callable[[Difference, Interval], str]]] = [
    ("Loss minus dense, nats/token (95 % CI)", lambda each, loss: loss_cell(each)),
    ("Loss minus dense, %", lambda each, loss: DASH if each.share is None else f"{signed(100 * each.share, 1)} %"),
    ("Sample", lambda each, loss: sample(each)),
    (f"Verdict (smallest effect of interest {SMALLEST_EFFECT:.1%})", lambda each, loss: each.verdict),
    (f"Verdict (smallest effect of interest {STRICTER_EFFECT:.1%})", lambda each, loss: each.stricter),
    ("Minimum detectable effect, nats/token", lambda each, loss: decimal(loss.minimum_detectable)),
]


def _audit_cell(method: Method) -> str:
    audits = [run.record.causality for run in method.runs if run.record.causality]
    if not audits:
        return DASH
    failed = sum(not audit.passed for audit in audits)
    worst = max(audit.max_abs_logit_change for audit in audits)
    verdict = f"FAILED in {failed} of {len(audits)}" if failed else f"passed in {len(audits)} of {len(audits)}"
    return f"{verdict} ({significant(worst, 1)})"


def _comparison_data(group: Group, compared: dict[str, Difference]) -> pd.DataFrame:
    data = []
    for method in group.methods:
        line: dict[str, object] = {"method": method.label, "contract": method.first.contract, "runs": len(method.runs)}
        if (difference := compared.get(method.label)) and (loss := difference.loss):
            line |= {"loss_minus_dense": loss.value, "low": loss.low, "high": loss.high, "stderr": loss.stderr}
            line |= {"degrees": loss.degrees, "seeds": difference.seeds[0], "dense_seeds": difference.seeds[1]}
            line |= {"detectable": loss.minimum_detectable, "share": difference.share}
            line |= {"verdict": difference.verdict, "verdict_stricter": difference.stricter}
        for row in ROWS:
            line[row.path], spread = _pooled(method, row.path)
            if row.path.startswith("quality."):
                line[f"{row.path}_seed_sd"] = spread
        line |= {name: of(method.first) for _, name, of, _ in _SIZES}
        data.append(line)
    return pd.DataFrame(data)


def _disagreement(flops: dict[str, float]) -> float:
    counts = [flops["forward_analytic"], flops["forward_fvcore"], flops["forward_torch"]]
    return (max(counts) - min(counts)) / max(counts) if max(counts) else 0.0
