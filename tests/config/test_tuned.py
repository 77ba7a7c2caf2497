"""Tuned settings: a method's own, its baseline's, and when they do not apply."""

import pytest

from bench.config.compose import configure
from bench.config.identity import comparison_hash, comparison_name, config_hash
from bench.config.options import add_config_dir
from bench.flops.match import dense_baseline

YAML = """# @package _global_
scale: tuned
model: {n_layers: 4, d_model: 32, n_heads: 2, context: 64}
train: {batch_size: 4, budget_flops: 1.0e10, lr_at_128: 0.004}
tuned:
  mod: {n_layers: 6, d_model: 48, n_heads: 3, batch_size: 2, lr_at_128: 0.002}
  mode/staged: {n_layers: 2, d_model: 16, n_heads: 1, batch_size: 8, lr_at_128: 0.008}
"""


@pytest.fixture(autouse=True)
def scale(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.config.options._ADDED", [], raising=False)
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale" / "tuned.yaml").write_text(YAML)
    add_config_dir(str(tmp_path))


def _shape(config):
    model, train = config.model, config.train
    return model.n_layers, model.d_model, model.n_heads, train.batch_size, train.lr_at_128


def test_method_and_baseline_have_their_own_tuned_settings():
    mod = configure(["+method=mod", "scale=tuned"])
    assert _shape(mod) == (6, 48, 3, 2, 0.002)
    assert _shape(dense_baseline(mod)) == (4, 32, 2, 4, 0.004)
    assert dense_baseline(mod) == configure(["+method=dense", "scale=tuned"])
    assert _shape(configure(["+method=mode", "scale=tuned"])) == (2, 16, 1, 8, 0.008)


def test_untuned_method_has_the_settings_of_the_baseline():
    moe = configure(["+method=moe", "scale=tuned"])
    assert moe.baseline is None and _shape(moe) == (4, 32, 2, 4, 0.004)


@pytest.mark.parametrize(
    "word", ["model.d_model=64", "model.n_layers=2", "train.batch_size=8", "train.lr=0.01", "contract=forward_flops"]
)
def test_given_settings_hold_for_both_sides(word):
    mod = configure(["+method=mod", "scale=tuned", word])
    assert mod.baseline is None and mod.tuned == {}
    assert _shape(mod) == _shape(dense_baseline(mod))


def test_tuned_runs_share_a_comparison_and_have_their_own_hash():
    dense, mod, moe = (configure([f"+method={name}", "scale=tuned"]) for name in ("dense", "mod", "moe"))
    assert len({comparison_hash(each) for each in (dense, mod, moe)}) == 1
    assert len({comparison_name(each) for each in (dense, mod, moe)}) == 1
    own = configure(["+method=mod", "scale=tuned", "tuned.mod.n_layers=4"])
    assert comparison_hash(own) == comparison_hash(mod) and config_hash(own) != config_hash(mod)


def test_other_values_of_a_tuned_scale_still_apply_to_both():
    mod = configure(["+method=mod", "scale=tuned", "train.budget_flops=2e10", "model.context=32"])
    for side in (mod, dense_baseline(mod)):
        assert side.train.budget_flops == 2e10 and side.model.context == 32
