import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from bench.config.schema import DataConfig
from bench.data import prepare
from bench.errors import UserError


@pytest.fixture
def data_set(tmp_path):
    """A data set in the hub's own layout, which the hub's library reads from a folder as it does from the hub."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for split, count in (("train", 50), ("validation", 9)):
        pandas.DataFrame({"story": [f"{split} {number}" for number in range(count)]}).to_parquet(
            folder / f"{split}.parquet"
        )

    def configure(**values):
        return DataConfig(
            name="stories", source="hub", dataset=str(folder), cache_dir=str(tmp_path / "cache"), **values
        )

    return configure


def documents(corpus):
    return corpus.tokenizer.decode(corpus.train).split("\ufffd")[:-1]


def test_first_documents_of_a_stream_are_for_validation(data_set):
    corpus = prepare(data_set(text_key="story", max_documents=20, validation_documents=5))
    assert sorted(document.text for document in corpus.validation) == [f"train {number}" for number in range(5)]
    assert documents(corpus) == [f"train {number}" for number in range(5, 25)]


def test_validation_split_is_used_and_is_not_downloaded_again(data_set, tmp_path):
    config = data_set(text_key="story", validation_split="validation", validation_documents=5)
    corpus = prepare(config)
    assert sorted(document.text for document in corpus.validation) == [f"validation {number}" for number in range(5)]
    assert documents(corpus) == [f"train {number}" for number in range(50)]
    downloads = {file: file.stat() for file in (tmp_path / "cache").glob("hub-*/*")}
    assert prepare(config).fingerprint == corpus.fingerprint
    assert {file: file.stat() for file in (tmp_path / "cache").glob("hub-*/*")} == downloads


@pytest.mark.parametrize("change", ["rewritten", "added"])
def test_local_data_set_that_changes_is_read_again(data_set, tmp_path, change):
    config = data_set(text_key="story", validation_documents=5)
    before = prepare(config)
    place = tmp_path / "stories" / ("train.parquet" if change == "rewritten" else "train-00001.parquet")
    pandas.DataFrame({"story": [f"other {number}" for number in range(50)]}).to_parquet(place)
    after = prepare(config)
    assert after.fingerprint != before.fingerprint
    assert "other 7" in documents(after)


def test_null_text_of_the_hub_is_skipped_and_counted(data_set, tmp_path, capsys):
    table = pandas.DataFrame({"story": ["one", None, "two", "three"]})
    table.to_parquet(tmp_path / "stories" / "train.parquet")
    corpus = prepare(data_set(text_key="story", validation_documents=1))
    assert documents(corpus) == ["two", "three"]
    assert "skipped because data.text_key='story' is null: 1." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "data.text_key='text' is no text column of .* .found 'story'"),
        ({"text_key": "story", "split": "test"}, "cannot stream data.dataset=.* split 'test'"),
    ],
)
def test_bad_hub_value_is_refused(values, message, data_set):
    with pytest.raises(UserError, match=message):
        prepare(data_set(**values))


def test_hub_without_a_data_set_is_refused():
    with pytest.raises(UserError, match="needs data.dataset"):
        prepare(DataConfig(name="hub", source="hub"))


@pytest.mark.parametrize("surroundings", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
@pytest.mark.parametrize(
    ("values", "key"),
    [
        ("source='hub', dataset='roneneldan/TinyStories'", "data.dataset=roneneldan/TinyStories"),
        ("tokenizer=TokenizerConfig('pretrained', name='gpt2')", "data.tokenizer.name=gpt2"),
    ],
)
def test_missing_network_is_one_line(surroundings, values, key, tmp_path):
    program = (
        "from bench.config.schema import DataConfig, TokenizerConfig; from bench.data import prepare\n"
        f"prepare(DataConfig(name='a', cache_dir={str(tmp_path / 'cache')!r}, {values}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", **surroundings},
        timeout=30,
    )
    last = result.stderr.splitlines()[-1]
    assert f"UserError: {key}: the Hugging Face hub cannot be reached" in last
    assert "Connect to a network, or use data" in last
    assert not list((tmp_path / "cache").iterdir())
