"""Differences, intervals and sentences against independent computations."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from report_records import DOCUMENT_TOKENS, make_record

from bench.records.record import Causality, Record
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
    assert "mod: at equal training FLOPs its held-out loss is 0.047 nats a token, 2.3\u00a0% lower (better)" in sentence
    assert "3 paired seeds; detectable from" in sentence
    assert "realised 1.50× the dense speed (95\u00a0% interval 1.40 to 1.60) of an ideal 1.78×" in sentence
    assert "peak memory was 0.80×" in sentence
    assert "with one seed" not in sentence


def test_an_interval_around_zero_is_no_difference():
    runs = [make_record("dense", seed, loss) for seed, loss in enumerate((2.0, 2.1, 1.95))]
    runs += [make_record("mod", seed, loss) for seed, loss in enumerate((1.95, 2.15, 1.96))]
    sentence = verdict(compare(*runs))
    assert "no difference in held-out loss from dense could be told" in sentence
    assert "better" not in sentence and "worse" not in sentence


def test_one_seed_uses_documents_and_says_what_it_cannot_tell():
    mod = RunFiles(make_record("mod", loss=sum(MOD_NATS) / 1200), documents=documents(MOD_NATS))
    dense = RunFiles(make_record("dense", loss=sum(DENSE_NATS) / 1200), documents=documents(DENSE_NATS))
    difference = compare(mod, dense)
    assert difference.loss.unit == "documents"
    sentence = verdict(difference)
    assert "one seed, 5 paired documents" in sentence
    assert "whether another training seed would agree is not known" in sentence


def test_one_seed_without_documents_has_no_interval():
    difference = compare(make_record("mod", loss=1.9), make_record("dense", loss=2.0))
    assert difference.loss.low is None and not difference.loss.significant
    assert "no difference could be told" in verdict(difference)


def test_a_failed_audit_never_counts():
    failed = Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False)
    runs = [make_record("dense", seed, 2.0 + seed / 10) for seed in range(3)]
    good = [make_record("mod", seed, 1.95 + seed / 9) for seed in range(2)]
    bad = make_record("mod", 2, 0.1, causality=failed, status="audit_failed")
    assert compare(*runs, *good, bad).loss == compare(*runs, *good).loss
    alone = compare(*runs, bad)
    assert alone.loss is None and alone.share is None
    sentence = verdict(alone)
    assert "quality is not compared with dense" in sentence and "causality audit failed" in sentence
    assert not re.search(r"\d nats", sentence)


def test_a_diverged_or_unaudited_run_never_counts():
    dense = make_record("dense")
    assert "became NaN" in verdict(compare(dense, make_record("mod", status="diverged")))
    assert "no causality audit" in verdict(compare(dense, make_record("mod", causality=None)))


def test_a_failed_twin_is_no_yardstick():
    failed = Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False)
    assert compare(make_record("dense", causality=failed), make_record("mod")).loss is None


def test_seeds_without_a_partner_are_not_paired():
    assert "no seed in common" in verdict(compare(make_record("dense", 0), make_record("mod", 1)))


def test_lm_eval_marks_scores_above_chance_by_two_standard_errors():
    def one(task: dict[str, float]):
        return score([RunFiles(make_record(lm_eval={"t": task}))], "t", next(iter(task)))

    assert one({"acc": 0.61, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.59, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.9, "chance": 0.5}).above_chance
    assert one({"bits_per_byte": 2.0, "bits_per_byte_stderr": 0.1, "chance": 8.0}).above_chance
    assert score([RunFiles(make_record())], "t", "acc") is None
