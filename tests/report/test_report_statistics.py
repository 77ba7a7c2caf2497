"""Differences, intervals and sentences against independent computations."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from report_records import make_record
from scipy import stats

from bench.records.record import Causality, Record
from bench.report.differences import differences, verdict
from bench.report.load import RunFiles, group_runs
from bench.report.tasks import score
from bench.stats.paired import document_source
from bench.stats.verdict import Verdict

DENSE_NATS = [210.0, 490.0, 810.0, 300.0, 600.0, 410.0]
MOD_NATS = [205.0, 470.0, 790.0, 296.0, 580.0, 402.0]


def documents(nats: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"document": list("abcdef"), "tokens": [200, 220, 240, 200, 210, 230], "nats": nats})


def compare(*runs: Record | RunFiles):
    group = group_runs([run if isinstance(run, RunFiles) else RunFiles(run) for run in runs])[0]
    return differences([group])[0][0]


def three_seeds(mod: list[float], first: int = 0) -> list[Record]:
    runs = [make_record("dense", seed, loss) for seed, loss in enumerate((2.00, 2.01, 1.99))]
    return runs + [make_record("mod", seed, loss) for seed, loss in enumerate(mod, first)]


def test_difference_of_three_seeds_is_better_by_welch():
    difference = compare(*three_seeds([1.95, 1.96, 1.95]))
    expected = stats.ttest_ind([1.95, 1.96, 1.95], [2.00, 2.01, 1.99], equal_var=False).confidence_interval(0.95)
    assert (difference.loss.low, difference.loss.high) == pytest.approx((expected.low, expected.high))
    assert difference.share == pytest.approx(difference.loss.value / 2.0)
    assert (difference.verdict, difference.seeds) == (Verdict.BETTER, (3, 3))
    sentence = verdict(difference)
    assert sentence.startswith(
        "−0.047 nats/token, −2.3\u00a0% (95\u00a0% CI −0.067\u00a0to\u00a0−0.026, n = 3 seeds): "
        "better than dense at equal training FLOPs. Smallest effect of interest ±0.020 nats/token, "
        "1\u00a0% of dense’s; minimum detectable effect 0.02"
    )
    assert "Training step: 1.50× the dense speed (95\u00a0% CI 1.40\u00a0to\u00a01.60), ideal 1.78×." in sentence
    assert "Peak memory: 0.80×" in sentence
    assert "One seed" not in sentence


def test_difference_needs_no_common_seeds():
    assert compare(*three_seeds([1.95, 1.96, 1.95], first=7)).loss == compare(*three_seeds([1.95, 1.96, 1.95])).loss


@pytest.mark.parametrize(
    ("mod", "words"),
    [
        ([2.05, 2.06, 2.05], "): worse than dense"),
        ([2.000, 2.003, 1.996], "): equivalent to dense"),
        ([1.95, 2.15, 1.96], "): inconclusive"),
    ],
)
def test_verdict_is_one_of_four_words(mod, words):
    sentence = verdict(compare(*three_seeds(mod)))
    assert words in sentence and "minimum detectable effect" in sentence
    assert sum(word in sentence for word in ("better", "worse", "equivalent", "inconclusive")) >= 1


def test_verdict_names_the_stricter_one_where_it_differs():
    difference = compare(*three_seeds([2.000, 2.003, 1.996]))
    assert (difference.verdict, difference.stricter) == (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
    assert "1\u00a0% of dense’s (with 0.5\u00a0%: inconclusive)" in verdict(difference)


def test_verdicts_of_a_page_are_one_family():
    runs = three_seeds([1.984, 1.968, 1.976])
    assert compare(*runs).verdict == Verdict.BETTER
    others = [make_record("moe", seed, loss) for seed, loss in enumerate((1.7, 2.3, 2.0))]
    together = differences(group_runs([RunFiles(run) for run in runs + others]))[0]
    assert {each.label: each.verdict for each in together} == dict.fromkeys(("MoD", "MoE"), Verdict.INCONCLUSIVE)
    elsewhere = [make_record("dense", seed, 2 + seed / 100, comparison_hash="b") for seed in range(3)]
    elsewhere += [make_record("moe", seed, loss, comparison_hash="b") for seed, loss in enumerate((1.7, 2.3, 2.0))]
    own, other = differences(group_runs([RunFiles(run) for run in runs + elsewhere]))
    assert [each.verdict for each in own + other] == [Verdict.INCONCLUSIVE] * 2


def test_difference_adds_the_variance_of_documents():
    runs = three_seeds([1.95, 1.96, 1.95])
    with_documents = [
        RunFiles(run, documents=documents(MOD_NATS if run.method == "mod" else DENSE_NATS)) for run in runs
    ]
    plain, wider = compare(*runs), compare(*with_documents)
    source = document_source([[documents(MOD_NATS)]], [[documents(DENSE_NATS)]])
    assert wider.loss.stderr**2 == pytest.approx(plain.loss.stderr**2 + source.variance)
    assert wider.loss.value == plain.loss.value and wider.documents is None
    assert (
        compare(*with_documents[:-1], runs[-1]).loss.stderr != wider.loss.stderr
    )  # one run without documents: seeds only


def one_seed(mod: pd.DataFrame | None, dense: pd.DataFrame | None):
    return compare(
        RunFiles(make_record("mod", loss=1.9), documents=mod), RunFiles(make_record("dense", loss=2.0), documents=dense)
    )


def test_one_seed_claims_nothing_whatever_its_documents_say():
    difference = one_seed(documents(MOD_NATS), documents(DENSE_NATS))
    assert (difference.loss.low, difference.loss.p, difference.loss.stderr) == (None, None, None)
    assert difference.documents.high < 0
    assert (difference.verdict, difference.stricter) == (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)
    sentence = verdict(difference)
    assert "(no CI, n = 1 seed): inconclusive at equal training FLOPs. One seed of MoD and dense does not" in sentence
    assert "train at least 3. With other validation documents these runs would differ by" in sentence
    assert "which says nothing about other seeds" in sentence


def test_one_seed_of_one_side_is_named():
    runs = three_seeds([1.9])
    difference = compare(*runs)
    assert difference.loss.low is None
    assert "n = 1 seed, dense 3): inconclusive" in verdict(difference)
    assert "One seed of MoD does not show" in verdict(difference)


def test_one_seed_says_why_documents_give_no_interval():
    one = pd.DataFrame({"document": ["a"], "tokens": [1200], "nats": [2400.0]})
    assert "1 validation document is too few" in verdict(one_seed(one, one))
    unequal = documents(MOD_NATS).assign(tokens=[1, 1, 1, 1, 1, 10_000])
    assert "6 validation documents are too few, or too unequal" in verdict(one_seed(unequal, unequal))
    for sentence in (verdict(one_seed(None, None)), verdict(one_seed(one, unequal))):
        assert "validation document" not in sentence and "train at least 3." in sentence


def test_verdict_names_sides_far_from_the_optimal_size():
    runs = three_seeds([1.95, 1.96, 1.95])
    for run in runs:  # 34.2 k parameters are optimal
        run.flops.train_total = 1e12
        run.model.params_active = 34_000 if run.method == "mod" else 340_000
    sentence = verdict(compare(*runs))
    assert (
        "Far from the compute-optimal size: Dense 9.95×, which" in sentence and "favours fewer FLOPs/token" in sentence
    )
    assert "MoD" not in sentence
    for run in runs:
        run.model.params_active = 60_000
    assert "compute-optimal" not in verdict(compare(*runs))
    for run in runs:
        run.model.params_active, run.flops.train_total = 6_000, 1e13
    assert "size, by an extrapolated law: Dense 0.06×, MoD 0.06×, which favours more FLOPs" in verdict(compare(*runs))


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


def test_score_above_chance_needs_two_standard_errors():
    def one(task: dict[str, float]):
        return score([RunFiles(make_record(lm_eval={"t": task}))], "t", next(iter(task)))

    assert one({"acc": 0.61, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.59, "acc_stderr": 0.05, "chance": 0.5}).above_chance
    assert not one({"acc": 0.9, "chance": 0.5}).above_chance
    assert one({"bits_per_byte": 2.0, "bits_per_byte_stderr": 0.1, "chance": 8.0}).above_chance
    assert score([RunFiles(make_record())], "t", "acc") is None
