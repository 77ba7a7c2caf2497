"""The corpus of the default configuration: two texts, whole books and messages held out."""

from collections import Counter

import pytest

from bench.config.compose import configure
from bench.config.schema import DataConfig
from bench.data import prepare
from bench.data.embedded import VALIDATION_BOOKS, held_out_messages, passages, presidential_messages, sections
from bench.measure.quality import choose


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    config = configure(["+method=mod"]).data
    config.cache_dir = str(tmp_path_factory.mktemp("both"))
    return prepare(config)


def test_messages_are_all_of_the_package_in_order_of_date():
    messages = presidential_messages()
    assert len(messages) == 249
    assert sum(len(message.text) for message in messages.values()) == 12_181_093
    names = list(messages)
    assert (names[0], names[-1]) == ("1790-Washington-1", "2026-Trump-1")
    assert [message.year for message in messages.values()] == sorted(message.year for message in messages.values())
    assert messages["1790-Washington-1"].text.startswith("Fellow-Citizens of the Senate and House of Representatives:")


def test_held_out_messages_are_alone_in_their_year_and_of_every_era():
    names = held_out_messages()
    years = [int(name.split("-")[0]) for name in names]
    assert len(names) >= 30
    assert max(Counter(name.split("-")[0] for name in presidential_messages() if int(name[:4]) in years).values()) == 1
    assert (min(years), max(years)) < (1800, 2026) and max(years) > 2000
    assert sum(year < 1830 for year in years) >= 8 and sum(1900 <= year < 1960 for year in years) >= 8


def test_default_validation_is_large_whole_and_all_used(both):
    clusters = Counter()
    for document in both.validation:
        clusters[document.cluster] += len(document.tokens)
    assert set(clusters) == {*VALIDATION_BOOKS, *held_out_messages()}
    assert len(both.validation) >= 200
    total = sum(clusters.values())
    assert total >= 500_000
    assert total**2 / sum(size**2 for size in clusters.values()) - 1 > 30  # degrees of freedom of a mean over clusters
    default = configure(["+method=mod"]).evaluate.validation_tokens
    assert len(choose(both.validation, default)) == len(both.validation)


def test_no_section_of_a_held_out_message_is_in_training(both):
    training = both.tokenizer.decode(both.train)
    held_out = {passage.text for passage in passages("sotu") if passage.held_out}
    assert len(held_out) > 150
    assert not [text for text in held_out if text[:200] in training]


def test_any_prefix_of_the_default_text_mixes_both(both):
    beginning = both.tokenizer.decode(both.train[:200_000])
    assert "the LORD" in beginning and "the Congress" in beginning
    assert len({document.cluster for document in both.validation[:30]}) >= 10


def test_joined_corpus_has_the_documents_of_its_parts(both):
    parts = [passages("kjv"), passages("sotu")]
    assert sorted(passages("kjv_sotu")) == sorted(parts[0] + parts[1])
    assert len(both.validation) == sum(passage.held_out for part in parts for passage in part)
    assert (both.train == both.tokenizer.eot).sum() == sum(not passage.held_out for part in parts for passage in part)


def test_messages_alone_are_a_corpus(tmp_path):
    corpus = prepare(DataConfig(name="sotu", source="sotu", cache_dir=str(tmp_path)))
    assert {document.cluster for document in corpus.validation} == set(held_out_messages())
    assert corpus.train_tokens > 11_000_000


@pytest.mark.parametrize("text", ["a b\n\nc " * 500, "x" * 5000, "word " * 1001, "short"])
def test_sections_hold_all_text_within_the_bound(text):
    parts = list(sections(text, 1000))
    assert "".join(parts).replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")
    assert max(map(len, parts)) <= 1000
    assert len(text) < 1000 or min(map(len, parts)) > 250


def test_sections_of_messages_are_bounded():
    longest = max(len(passage.text) for passage in passages("sotu"))
    assert 3000 < longest <= 4000
