import pytest

from bench.config.schema import DataConfig, TokenizerConfig
from bench.data import prepare


@pytest.fixture
def prepared(tmp_path):
    """Prepares people's own files with a cache of the test's own."""

    def prepare_files(*train, tokenizer="bytes", vocab_size=300, tokenizer_name=None, **values):
        config = DataConfig(
            name="texts",
            source="text",
            train=[str(path) for path in train],
            tokenizer=TokenizerConfig(tokenizer, vocab_size, tokenizer_name),
            cache_dir=str(tmp_path / "cache"),
            **values,
        )
        return prepare(config)

    return prepare_files


@pytest.fixture(scope="session")
def kjv(tmp_path_factory):
    """The corpus of the default configuration."""
    return prepare(DataConfig(name="kjv", cache_dir=str(tmp_path_factory.mktemp("kjv"))))
