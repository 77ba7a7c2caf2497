"""Differences, intervals and sentences against independent computations."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from report_records import DOCUMENT_TOKENS, make_record

from bench.records.record import Causality, Record
from bench.report.comparison import summary_table
from bench.report.differences import differences, verdict
from bench.report.load import RunFiles, group_runs
from bench.report.tasks import score


def documents(nats: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"document": list("abcde"), "tokens": DOCUMENT_TOKENS, "nats": nats})


DENSE_NATS = [210.0, 490.0, 810.0, 300.0, 600.0]
MOD_NATS = [205.0, 470.0, 790.0, 296.0, 580.0]


def compare(*runs: Record | RunFiles):
    group = group_runs([run if isinstance(run, RunFiles) else RunFiles(run) for run in runs])[0]
    return differences(group)[0]


def test_three_seeds_are_paired_by_seed_and_significant():
    runs = [make_record("dense", seed, loss) for seed, loss in ((2, 1.95), (0, 2.0), (1, 2.1))]
    runs += [make_record("mod", seed, loss) for seed, loss in ((0, 1.95), (1, 2.06), (2, 1.90))]
    difference = compare(*runs)
    assert difference.loss.value == pytest.approx((-0.05 - 0.04 - 0.05) / 3)
    assert difference.loss.significant
    assert difference.share == pytest.approx(difference.loss.value / np.mean([2.0, 2.1, 1.95]))
    sentence = verdict(difference)
    assert sentence.startswith(
        "better than dense at equal training FLOPs: validation loss −0.047 nats/token, −2.3\u00a0%"
    )
    assert "n = 3 seeds; minimum detectable effect" in sentence
    assert "Training step: 1.50× the dense speed (95\u00a0% CI 1.40\u00a0to\u00a01.60), ideal 1.78×." in sentence
    assert "Peak memory: 0.80×" in sentence
    assert "One seed" not in sentence


def test_verdict_with_an_interval_around_zero_is_not_significant():
    runs = [make_record("dense", seed, loss) for seed, loss in enumerate((2.0, 2.1, 1.95))]
    runs += [make_record("mod", seed, loss) for seed, loss in enumerate((1.95, 2.15, 1.96))]
    sentence = verdict(compare(*runs))
    assert sentence.startswith("not significantly different from dense") and "minimum detectable effect" in sentence
    assert "better" not in sentence and "worse" not in sentence


def test_verdict_of_one_seed_uses_documents_and_states_the_limit():
    mod = RunFiles(make_record("mod", loss=sum(MOD_NATS) / 1200), documents=documents(MOD_NATS))
    dense = RunFiles(make_record("dense", loss=sum(DENSE_NATS) / 1200), documents=documents(DENSE_NATS))
    difference = compare(mod, dense)
    assert difference.loss.unit == "documents"
    sentence = verdict(difference)
    assert "n = 1 seed, 5 documents" in sentence
    assert "One seed: the CI covers the choice of documents, not the variance between training seeds" in sentence


def test_verdict_of_one_seed_without_documents_is_inconclusive():
    difference = compare(make_record("mod", loss=1.9), make_record("dense", loss=2.0))
    assert difference.loss.low is None and not difference.loss.significant
    assert verdict(difference).startswith("inconclusive") and "no CI" in verdict(difference)


def test_difference_excludes_a_failed_audit():
    failed = Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False)
    runs = [make_record("dense", seed, 2.0 + seed / 10) for seed in range(3)]
    good = [make_record("mod", seed, 1.95 + seed / 9) for seed in range(2)]
    bad = make_record("mod", 2, 0.1, causality=failed, status="audit_failed")
    assert compare(*runs, *good, bad).loss == compare(*runs, *good).loss
    alone = compare(*runs, bad)
    assert alone.loss is None and alone.share is None
    sentence = verdict(alone)
    assert "quality not compared with dense" in sentence and "causality audit failed" in sentence
    assert not re.search(r"\d nats", sentence)


def test_difference_excludes_diverged_and_unaudited_runs():
    dense = make_record("dense")
    assert "became NaN" in verdict(compare(dense, make_record("mod", status="diverged")))
    assert "no causality audit" in verdict(compare(dense, make_record("mod", causality=None)))


def test_difference_from_a_failed_baseline_is_absent():
    failed = Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False)
    assert compare(make_record("dense", causality=failed), make_record("mod")).loss is None


def test_verdict_without_a_common_seed_says_so():
    assert "no seed in common" in verdict(compare(make_record("dense", 0), make_record("mod", 1)))


def test_score_above_chance_needs_two_standard_errors():
    def one(task: dict[str, float]):
        return score([RunFiles(make_record(lm_eval={"t": task}))], "t", next(iter(task)))

    assert one({"acc": 0.61, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.59, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.9, "chance": 0.5}).above_chance
    assert one({"bits_per_byte": 2.0, "bits_per_byte_stderr": 0.1, "chance": 8.0}).above_chance
    assert score([RunFiles(make_record())], "t", "acc") is None


def test_groups_of_a_sweep_are_headed_and_ordered_by_what_differs():
    """The hashes are in another order than the values."""
    runs = []
    for lr, comparison_hash in ((0.01, "bbb"), (None, "ccc"), (0.002, "aaa"), (1, "000")):
        record = make_record(comparison_hash=comparison_hash)
        record.config |= {"train": {"lr": lr, "batch_size": 8}}
        runs.append(RunFiles(record))
    groups = group_runs(runs)
    assert [group.differs for group in groups] == [f"train.lr={lr}" for lr in ("null", "0.002", "0.01", "1")]
    assert [group.comparison_hash for group in groups] == ["ccc", "aaa", "bbb", "000"]
    table = summary_table([run.record for run in runs])
    assert re.findall("train.lr=.*", table) == [group.differs for group in groups]
    assert group_runs(runs[:1])[0].differs == ""
