"""IsoFLOP studies made by hand, by a law that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from report_records import make_record

from bench.isoflop.analysis.claims import claims
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.results import read_study
from bench.isoflop.analysis.verdicts import against_dense
from bench.isoflop.pages.laws import study_fits
from bench.records.isoflop import FILE, Stages, Study, Timed
from bench.records.record import Environment, Timing

E, A, B, ALPHA, BETA = 0.5, 20.0, 60.0, 0.34, 0.30
BUDGETS = (1e12, 4e12)


def law(params, tokens):
    return E + A / params**ALPHA + B / tokens**BETA


def best_params(flops):
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** (BETA / (ALPHA + BETA))


def best_loss(flops):
    return law(best_params(flops), flops / 6 / best_params(flops))


def make_study(
    folder: Path,
    better=2.0,
    noise=0.0005,
    budgets=BUDGETS,
    sizes=5,
    name="made",
    methods=("dense", "mod"),
    seed=100,
    seeded=False,
):
    """A study in which mod does with its FLOPs what dense does with `better` times as many.

    Three seeds of the size in the middle, or where `seeded` of every size, so that any may be a best shape.
    """
    rng = np.random.default_rng(seed)
    stages = Stages()
    timings = []
    for method in methods:
        gain = better if method == "mod" else 1.0
        for flops in budgets:
            for size, params in enumerate(np.geomspace(best_params(flops) / 2.5, best_params(flops) * 2.5, sizes)):
                for run_seed in range(3 if seeded or size == sizes // 2 else 1):
                    loss = law(params, gain * flops / 6 / params) * (1 + noise * rng.standard_normal())
                    run = write_run(folder, method, flops, size, params, flops / 6 / params, run_seed, loss)
                    (stages.seeds if run_seed else stages.grid).append(run)
                timings.append(
                    Timed(
                        method=method, n_layers=2 + size, d_model=16, step_tokens=1024, step_flops=6 * params * 1024,
                        step_seconds=Timing.of([params * 1e-8 * (0.8 if method == "mod" else 1.0)] * 6),
                    )
                )  # fmt: skip
    study = Study(
        name=name, created="2026-11-24T00:00:00+00:00", git_commit="abc1234", command="python -m bench +study=made",
        environment=Environment(python="3.11", torch="2.13.0", device="cpu", device_name="a CPU", platform="Linux",
                                threads=1, packages={}),
        methods=list(methods), budgets=list(budgets), grid={}, stages=stages, timings=timings,
    )  # fmt: skip
    study.save(folder / FILE)
    return folder


def write_run(folder: Path, method, flops, size, params, tokens, seed, loss) -> str:
    run_id = f"{method}-{flops:.0e}-{size}-{seed}".replace("+", "")
    record = make_record(method, seed, float(loss), run_id=run_id, name="made")
    record.config["train"] = {"budget_flops": flops, "lr_at_128": 1e-3}
    record.model.n_layers, record.model.d_model = 2 + size, 16
    record.model.params_total = record.model.params_active = round(params)
    record.flops.forward_per_token, record.flops.train_total = 2 * params, flops
    record.training.tokens = round(tokens)
    (folder / run_id).mkdir(parents=True)
    record.save(folder / run_id / "record.json")
    return run_id


def verdict(folder: Path, claim: str) -> str:
    results = read_study(folder)
    found = claims(results, against_dense(results), iso_losses(results), study_fits(results))
    return next(c.verdict for c in found if c.text.startswith(claim))
