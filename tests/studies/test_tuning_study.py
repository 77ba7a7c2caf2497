"""The tuning study: what it runs and chooses, and that the defaults are what the committed one chose."""

from pathlib import Path
from statistics import fmean

import pytest

from bench.config.compose import configure
from bench.flops.match import dense_baseline
from bench.isoflop.run.scheduler import Ended
from bench.records.tuning import FILE, load_tuning
from bench.report.tuning import over, write_study
from bench.studies.tuning import _MethodSearch, run

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "+study=tuning", "study.methods=[dense,mod]", "study.tuning.depths=[2,3,4]",
    "study.tuning.widths=[[8,1],[16,1],[24,1]]",
    "study.tuning.batch_sizes=[1,2,4]", "study.tuning.rates=[0.001,0.004,0.016]", "study.tuning.start=[1,1,1,1]",
    "study.tuning.candidates=2", "study.tuning.selection_seeds=2", "study.tuning.fresh_seeds=2",
    "study.tuning.workers=1", "model.context=32", "train.budget_flops=5e7", "train.device=cpu", "data=kjv",
    "evaluate.validation_tokens=500", "evaluate.batch_size=64",
]  # fmt: skip


def _settings(config):
    model, train = config.model, config.train
    return {
        "n_layers": model.n_layers, "d_model": model.d_model, "n_heads": model.n_heads,
        "batch_size": train.batch_size, "lr_at_128": train.lr_at_128,
    }  # fmt: skip


def test_defaults_are_what_the_committed_study_chose():
    study = load_tuning(ROOT / "results" / "tuning" / FILE)
    config = configure(["+method=mod"])
    assert study.budget == config.train.budget_flops
    assert study.methods["mod"].candidates[0].settings.model_dump() == _settings(config)
    assert study.methods["dense"].candidates[0].settings.model_dump() == _settings(dense_baseline(config))
    chosen, *others = study.methods["dense"].candidates
    assert all(over(chosen.fresh, other.fresh).value < 1.01 for other in others)


def test_study_searches_chooses_resumes_and_writes_a_page(tmp_path, capsys):
    config = configure([*SMALL, f"results_dir={tmp_path / 'r'}", f"reports_dir={tmp_path / 'q'}"])
    assert run(config, "command") == 0
    path = tmp_path / "r" / "tuning" / FILE
    study = load_tuning(path)
    dense, mod = study.methods["dense"], study.methods["mod"]
    for tuned in (dense, mod):
        assert tuned.searched >= 25 and len(tuned.candidates) == 2
        means = [fmean(each.selection) for each in tuned.candidates]
        assert means == sorted(means) and all(len(each.selection) == 2 for each in tuned.candidates)
    assert [len(each.fresh) for each in (*dense.candidates, *mod.candidates)] == [2, 2, 2, 2]
    runs = {folder.name: folder.stat().st_mtime_ns for folder in path.parent.iterdir() if folder.is_dir()}
    assert run(config, "command") == 0  # nothing is run again
    assert {folder.name: folder.stat().st_mtime_ns for folder in path.parent.iterdir() if folder.is_dir()} == runs
    page = write_study(path, tmp_path / "again").parent
    text = (page / "report.md").read_text(encoding="utf-8")
    assert "times the loss of the best other candidate" in text and "| Dense |" in text and "| MoD |" in text


def test_fresh_seeds_are_none_of_those_that_chose(tmp_path):
    config = configure([*SMALL, f"results_dir={tmp_path}"])
    search = _MethodSearch("dense", config, 257)
    first = list(search.missing(Ended()))
    assert len(first) == 25 and len({job.config.seed for job in first}) == 1
    assert set(search._selection_seeds).isdisjoint(search._fresh_seeds)
    assert _MethodSearch("mod", configure([*SMALL, "study.tuning.depths=[1,2,3,4]"]), 257)._depths == [2, 3, 4]
    defaults = configure(["+method=mod"])
    own = range(defaults.seed, defaults.seed + defaults.seeds)
    assert not {*search._selection_seeds, *search._fresh_seeds}.intersection(own)


def test_ratio_of_mean_losses_has_welchs_interval():
    ratio = over([1.1, 1.2, 1.3], [1.0, 1.1, 1.2])
    assert ratio.value == pytest.approx(1.2 / 1.1)
    assert ratio.low < 1 < ratio.high
