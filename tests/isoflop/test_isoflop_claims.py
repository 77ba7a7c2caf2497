"""Verdicts on studies made by hand, whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from isoflop_studies import BUDGETS, make_study, verdict
from report_records import change_records, make_record

from bench.isoflop.analysis.claims import claims
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.results import read_study
from bench.isoflop.analysis.verdicts import against_dense
from bench.isoflop.pages import laws
from bench.isoflop.pages.laws import study_fits
from bench.records.isoflop import (
    EARLIER,
    FILE,
    Covariate,
    DepthUse,
    EarlierStudies,
    StudySummary,
    TokenStudy,
    load_study,
)
from bench.records.record import DecodePoint, Environment, RoutingStatistics, Timing, load_record
from bench.records.targets import Targets
from bench.stats.verdict import Mark


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer resamples of the laws: enough for verdicts."""
    monkeypatch.setattr(laws, "_BOOTSTRAPS", 200)


def cards(folder: Path):
    results = read_study(folder)
    return claims(results, against_dense(results), iso_losses(results), study_fits(results))


def card(folder: Path, begins: str):
    return next(each for each in cards(folder) if each.text.startswith(begins))


def add_controls(folder: Path, runs: dict[str, float], noise: float = 0.001) -> None:
    """name -> loss, three seeds each, at the shape that is best for mod at the first budget."""
    study = load_study(folder / FILE)
    results = read_study(folder)
    best = results.best("mod", BUDGETS[0]).iloc[0]
    rng = np.random.default_rng(0)
    for name, loss in runs.items():
        method, capacity, router, causal = name.split("/")
        for seed in range(3):
            record = make_record(method, seed, loss + noise * rng.standard_normal(),
                                 run_id=f"control-{method}-{capacity}-{causal}-{seed}", name="made")  # fmt: skip
            record.config["train"] = {"budget_flops": BUDGETS[0], "lr_at_128": 1e-3}
            record.config["method"] = {"depth": {"capacity": float(capacity), "router": router, "causal": causal}}
            record.model.n_layers, record.model.d_model = int(best["n_layers"]), int(best["d_model"])
            (folder / record.run.id).mkdir()
            record.save(folder / record.run.id / "record.json")
            study.stages.controls.append(record.run.id)
    study.save(folder / FILE)


def routed(folder: Path) -> float:
    """Give the mod runs their depth settings, and return the loss of the best shape at the first budget."""

    def to(record):
        record.config["method"] = {"depth": {"capacity": 0.125, "router": "learned", "causal": "predictor"}}

    change_records(folder, "mod-*", to)
    return float(read_study(folder).best("mod", BUDGETS[0])["loss"].mean())


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((0.02, 0.03, 0.02), Mark.SUPPORTED),
        ((0.02, -0.02, 0.02), Mark.CONTRADICTED),
        ((0.02, 0.0, 0.02), Mark.EQUIVALENT),
    ],
)
def test_best_capacity_must_beat_each_other_one(tmp_path: Path, others, expected):
    folder = make_study(tmp_path / "made", better=1.0)
    own = routed(folder)
    capacities = zip((0.25, 0.5, 0.95), others, strict=True)
    add_controls(folder, {f"mod/{capacity}/learned/predictor": own + more for capacity, more in capacities})
    found = card(folder, "12.5 % is the best")
    assert found.verdict == expected and "Holm" in found.analysis


@pytest.mark.parametrize(
    ("worse", "expected"), [(0.05, Mark.SUPPORTED), (-0.05, Mark.CONTRADICTED), (0.0, Mark.EQUIVALENT)]
)
def test_learned_router_is_compared_at_the_random_ones_capacity(tmp_path: Path, worse, expected):
    folder = make_study(tmp_path / "made", better=1.0)
    add_controls(folder, {"mod_random/0.125/gaussian/predictor": routed(folder) + worse})
    assert verdict(folder, "A learned router beats a random one.") == expected


@pytest.mark.parametrize(
    ("worse", "expected"), [(0.05, Mark.SUPPORTED), (-0.05, Mark.CONTRADICTED), (0.0, Mark.EQUIVALENT)]
)
def test_bce_router_is_compared_with_the_predictor(tmp_path: Path, worse, expected):
    folder = make_study(tmp_path / "made", better=1.0)
    add_controls(folder, {"mod/0.125/learned/bce": routed(folder) + worse})
    assert verdict(folder, "The other causal router") == expected


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.99, Mark.SUPPORTED), (0.9, Mark.CONTRADICTED), (0.97, Mark.INCONCLUSIVE)]
)
def test_predictor_agreement_is_tested_against_97_percent(tmp_path: Path, accuracy, expected):
    folder, rng = make_study(tmp_path / "made"), np.random.default_rng(0)

    def to(record):
        record.routing = RoutingStatistics(predictor_accuracy=accuracy + 0.002 * rng.standard_normal())

    change_records(folder, "mod-*", to)
    assert verdict(folder, "A small predictor agrees") == expected


@pytest.mark.parametrize(
    ("cost", "expected"), [(0.001, Mark.SUPPORTED), (0.02, Mark.CONTRADICTED), (0.005, Mark.INCONCLUSIVE)]
)
def test_causal_router_cost_is_tested_against_half_a_percent(tmp_path: Path, cost, expected):
    folder, rng = make_study(tmp_path / "made"), np.random.default_rng(0)

    def to(record):
        record.quality.val_loss_nats_noncausal = record.quality.val_loss_nats / (
            1 + cost + 0.0002 * rng.standard_normal()
        )

    change_records(folder, "mod-*", to)
    assert verdict(folder, "Routing by that predictor") == expected


@pytest.mark.parametrize(("better", "expected"), [(2.5, Mark.SUPPORTED), (1.1, Mark.CONTRADICTED)])
def test_saved_compute_does_not_count_extrapolations(tmp_path: Path, better, expected):
    folder = make_study(tmp_path / "made", better=better, noise=0.0002, budgets=(1e12, 2e12, 4e12, 8e12, 1.6e13))
    found = card(folder, "About 40 % of compute")
    assert "an extrapolation, not counted" in found.measured
    assert found.verdict == (
        Mark.INCONCLUSIVE if expected == Mark.SUPPORTED else Mark.CONTRADICTED
    )  # what is extrapolated keeps it from holding


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.12, Mark.SUPPORTED), (0.06, Mark.CONTRADICTED), (0.08, Mark.EQUIVALENT)]
)
def test_gains_add_up_where_the_sum_is_reached(tmp_path: Path, gain, expected):
    folder = make_study(tmp_path / "made", methods=("dense", "moe", "mod", "mode"), noise=0.0)
    rng = np.random.default_rng(0)
    lower = {"dense": 0.0, "moe": 0.04, "mod": 0.04, "mode": gain}
    dense = {path.parent.name.split("-", 1)[1]: load_record(path).quality.val_loss_nats
             for path in folder.glob("dense-*/record.json")}  # fmt: skip

    def to(record):
        record.quality.val_loss_nats = (
            dense[record.run.id.split("-", 1)[1]] - lower[record.method] + 0.001 * rng.standard_normal()
        )

    change_records(folder, "*", to)
    assert card(folder, "They add up").verdict == expected
    assert card(folder, "Gains of depth and experts compound").verdict == (
        Mark.SUPPORTED if gain > 0.04 else Mark.INCONCLUSIVE
    )


def decoded(folder: Path, speeds: dict[tuple[int, int], float]) -> None:
    points = [
        DecodePoint(batch_size=rows, context=context, steps=8, tokens_per_second=1.0, step_seconds=Timing.of([1.0] * 8),
                    step_seconds_p95=1.0, first_token_seconds=1.0, form="gathered", bytes_per_token=1.0,
                    flops_per_token=1.0, kv_cache_bytes=1, kv_cache_held_bytes=1,
                    speedup_realised=Timing.of([speed * (1 + 0.01 * n) for n in range(-4, 4)]))
        for (rows, context), speed in speeds.items()
    ]  # fmt: skip
    bars = Targets(study="decode", created="2026-11-24", command="x", shape={"n_layers": 12, "d_model": 512}, rounds=8,
                environment=Environment(python="3.11", torch="2.13.0", device="cpu", device_name="a CPU",
                                        platform="Linux", threads=1, packages={}),
                targets=[], decode={"mod": points})  # fmt: skip
    (folder.parent / "decode").mkdir()
    (folder.parent / "decode" / "targets.json").write_text(bars.model_dump_json(), encoding="utf-8")


@pytest.mark.parametrize(
    ("short", "expected", "told"),
    [(1.7, Mark.SUPPORTED, "4 of 4 support"), (1.2, Mark.CONTRADICTED, "3 of 4 contradict (batch 2 at")],
)
def test_decoding_claim_counts_every_measured_point(tmp_path: Path, short, expected, told):
    folder = make_study(tmp_path / "made")
    decoded(folder, {(1, 4096): 1.7, (2, 256): short, (4, 256): short, (64, 128): short})
    found = card(folder, "Sampling steps")
    assert found.verdict == expected and told in found.measured and "equal shape" in found.text


def correlations(as_it_is: float, at_equal: float) -> list[Covariate]:
    return [
        Covariate(layer="all", covariate=f"{name} of the next token", given=given, rho=rho, low=rho - 0.02,
                  high=rho + 0.02, p=0.001)
        for name in ("loss", "entropy") for given, rho in (("none", as_it_is), ("position, frequency, kind", at_equal))
    ]  # fmt: skip


def studied(folder: Path, *models: tuple[float, float]) -> None:
    """The first model is the study's own, the second another seed, the others those of earlier studies."""
    study = load_study(folder / FILE)
    use = DepthUse(layers=[1], correlations=correlations(*models[0]), profiles={}, by_kind={})
    seeds = {"mod": {f"seed{n}": correlations(*model) for n, model in enumerate(models[1:2], 1)}}
    study.tokens = TokenStudy(tokens=1000, documents=10, statistic="any", twin="dense", runs={"mod": "mod"}, kinds=[],
                              depth={"mod": use}, experts={}, settling={}, seeds=seeds)  # fmt: skip
    study.save(folder / FILE)
    earlier = [
        StudySummary(created=f"2026-11-{day}", source_commit="abc", machine="a CPU", differences=[],
                     depth={"mod": correlations(*model)})
        for day, model in enumerate(models[2:], 10)
    ]  # fmt: skip
    EarlierStudies(studies=earlier).save(folder / EARLIER)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([(0.1, 0.1)], Mark.INCONCLUSIVE),  # one model tells nothing of another
        ([(0.1, 0.1), (0.12, 0.09), (0.11, 0.1), (0.1, 0.11)], Mark.SUPPORTED),
        ([(-0.1, -0.1), (-0.12, -0.09), (-0.11, -0.1), (-0.1, -0.11)], Mark.CONTRADICTED),
        ([(-0.1, 0.1), (-0.12, 0.09), (-0.11, 0.1), (-0.1, 0.11)], Mark.INCONCLUSIVE),  # another sign at equal kind
        ([(-0.13, 0.03), (0.1, -0.04), (-0.12, 0.03), (0.1, 0.05)], Mark.INCONCLUSIVE),  # another sign in each model
    ],
)
def test_difficulty_is_decided_by_models_not_by_tokens(tmp_path: Path, models, expected):
    folder = make_study(tmp_path / "made")
    studied(folder, *models)
    found = card(folder, "Hard tokens get more depth")
    assert found.verdict == expected and "models are the units" in found.analysis
    assert found.measured.count("unadjusted") == 2 and found.measured.count(" adjusted") == 2
    assert found.measured.count(f"{len(models)} model{'s' * (len(models) > 1)}") == 4


def test_noisy_ablation_is_inconclusive(tmp_path: Path):
    folder = make_study(tmp_path / "made", better=1.0)
    own = routed(folder)
    add_controls(folder, {"mod/0.125/learned/bce": own + 0.01}, noise=0.05)
    assert verdict(folder, "The other causal router") == Mark.INCONCLUSIVE


def test_step_time_interval_widens_with_timing_noise(tmp_path: Path):
    def width(spread: float) -> float:
        folder = make_study(tmp_path / f"{spread}", better=1.05, noise=1e-5, sizes=9)
        study = load_study(folder / FILE)
        for timed in study.timings:
            median = timed.step_seconds.median
            timed.step_seconds.low, timed.step_seconds.high = median / (1 + spread), median * (1 + spread)
        study.save(folder / FILE)
        time = next(p.step_time for p in iso_losses(read_study(folder)) if p.budget == BUDGETS[0])
        return time.high - time.low

    assert width(0.1) > 5 * width(0.0)


def test_claims_without_evidence_are_not_tested(tmp_path: Path):
    found = cards(make_study(tmp_path / "made"))
    assert len(found) == 20 and all(each.analysis and each.next_experiment for each in found)
    for begins in ("It takes less energy", "Integrated MoDE", "MoD should grow", "It holds past 1 B"):
        own = next(each for each in found if each.text.startswith(begins))
        assert own.verdict == Mark.NOT_TESTED and not own.evidence


def test_energy_claim_uses_the_counter_where_runs_have_one(tmp_path: Path):
    folder, rng = make_study(tmp_path / "made", better=1.0), np.random.default_rng(0)

    def to(record):
        each = (0.5 if record.method == "mod" else 1.0) * (1 + 0.01 * rng.standard_normal())
        content = json.loads(record.model_dump_json())
        content["energy"] = {"joules_per_token": each}
        record.energy = type(record).model_validate(content).energy

    change_records(folder, "*", to)
    assert verdict(folder, "It takes less energy") == Mark.SUPPORTED
