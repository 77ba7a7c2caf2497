"""The plan of an isoFLOP study, printed before anything is trained."""

from __future__ import annotations

from bench.dry_run import ASSUMED_UTILISATION, duration, training_memory
from bench.machine import Machine
from bench.report.formats import scaled
from bench.study.isoflop.grid import Grid


def describe(grid: Grid, machine: Machine) -> str:
    """Stages with runs, FLOPs and estimated time; the sizes of each budget and method; the memory of the largest."""
    stages = [["stage", "runs", "training FLOPs", "time (estimate)"]]
    planned = grid.planned_flops()
    for name, (runs, flops) in [*planned.items(), ("all", tuple(map(sum, zip(*planned.values(), strict=True))))]:
        seconds = flops / machine.matmul_flops / ASSUMED_UTILISATION
        stages.append([name, f"{runs:,}", f"{flops:.3g}", duration(seconds)])
    jobs = grid.sizes(dict.fromkeys(grid.methods, grid.config.train.lr_at_128))
    sizes = [["method", "budget", "layers x d_model", "active parameters", "tokens", "steps"]]
    for (name, budget), own in jobs.items():
        first, last = own[0], own[-1]
        shapes = " ".join(f"{job.config.model.n_layers}x{job.config.model.d_model}" for job in own)
        params = f"{scaled(first.plan.count.params_active)} to {scaled(last.plan.count.params_active)}"
        tokens = f"{scaled(first.plan.tokens)} to {scaled(last.plan.tokens)}"
        sizes.append([name, f"{budget:.3g}", shapes, params, tokens, f"{first.plan.steps:,} to {last.plan.steps:,}"])
    memory = max(training_memory(job.plan, job.config) for own in jobs.values() for job in own)
    return "\n".join(
        [
            f"{grid.config.study.name if grid.config.study else 'study'}: training on {grid.config.data.name}, "
            f"context {grid.config.model.context}, {grid.config.train.batch_size} sequences a step",
            "",
            *_aligned(stages),
            "",
            *_aligned(sizes),
            "",
            f"A run takes at most {memory / 2**30:.2f} GiB. Time: this machine's matrix products run at "
            f"{machine.matmul_flops / 1e9:,.0f} GFLOP/s, of which half is assumed. Sizes whose best run stands at an "
            "end are extended.",
        ]
    )


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
