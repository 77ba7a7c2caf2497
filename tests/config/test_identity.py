"""The spellings of a method, and the hashes that committed records hold."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.config.compose import configure, expand
from bench.config.identity import MethodId, comparison_hash, comparison_name, config_hash, run_folder
from bench.config.validate import validated
from bench.flops.match import dense_baseline
from bench.records.packed import find_records, read_bytes


@pytest.mark.parametrize(
    ("text", "title", "slug"),
    [
        ("dense", "Dense", "dense"),
        ("moe", "MoE", "moe"),
        ("mod_random", "MoD random", "mod_random"),
        ("mode/staged", "MoDE (staged)", "mode-staged"),
        ("mode/integrated", "MoDE (integrated)", "mode-integrated"),
        ("expert_choice", "Expert choice", "expert_choice"),
    ],
)
def test_method_id_has_every_spelling(text: str, title: str, slug: str):
    method = MethodId.parse(text)
    assert (str(method), method.title, method.slug) == (text, title, slug)


def committed_records() -> list[Path]:
    return find_records(Path(__file__).resolve().parents[2] / "results")


def test_configuration_and_hashes_of_committed_records_are_stable():
    """Records hold the configuration and its hashes; what reads and extends them must find the same today."""
    records = [json.loads(read_bytes(path)) for path in committed_records()]
    assert records
    for record in records:
        config, run = validated(record["config"]), record["run"]
        for key in ("include_path", "speed_shape"):  # later keys, hashed where they are given
            record["config"]["evaluate"].setdefault(key, None)
        record["config"] = {"seeds": 1, "tuned": {}, "baseline": None} | record["config"]
        assert json.loads(json.dumps(asdict(config))) == record["config"]
        assert (config_hash(config), comparison_hash(config)) == (run["config_hash"], run["comparison_hash"])
        assert run_folder(config).name == run["id"]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ([], "tiny-kjv_sotu-train_flops-"),
        (["scale=base", "train.lr=1"], "base-kjv_sotu-train_flops-"),
        (["scale=base", "model.d_model=96"], "12x96-kjv_sotu-train_flops-"),
        (["scale=base", "model.context=64"], "12x768-kjv_sotu-train_flops-"),
        (["scale=base", "model.n_kv_heads=2"], "base-kjv_sotu-train_flops-"),
        (["model.n_layers=2", "name=mine"], "mine"),
    ],
)
def test_comparison_of_another_shape_is_not_named_after_the_scale(words: list[str], start: str):
    assert comparison_name(configure(["+method=mod", *words])).startswith(start)


def test_composed_configuration_has_the_hash_of_a_committed_record():
    """Of the command that a record names, composed again."""
    for method in ("dense", "mod"):
        path = next(path for path in committed_records() if "default" in str(path) and f"/{method}-" in str(path))
        record = json.loads(read_bytes(path))
        words = [word for word in shlex.split(record["command"])[3:] if not word.startswith("-")]
        config = replace(configure(expand(words, multirun=True)[0]), seed=record["run"]["seed"])
        own = dense_baseline(config) if method == "dense" else config
        assert config_hash(own) == record["run"]["config_hash"]
