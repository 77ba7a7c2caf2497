import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.split import copy_hash
from bench.errors import UserError
from bench.measure.quality import choose


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def documents(corpus):
    return corpus.tokenizer.decode(corpus.train).split("\ufffd")[:-1]


TEXTS = [f"document {number} of the collection" for number in range(400)]


def test_one_in_twenty_is_for_validation_in_any_order(tmp_path, prepared):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    one = prepared(write_lines(tmp_path / "one.jsonl", TEXTS))
    other = prepared(write_lines(tmp_path / "other.jsonl", shuffled))
    validation = [document.text for document in one.validation]
    assert len(validation) == 20
    assert validation == [document.text for document in other.validation]
    assert sorted(validation + documents(one)) == sorted(TEXTS)
    assert documents(other) == [text for text in shuffled if text not in validation]


def test_validation_documents_bounds_the_validation_set(tmp_path, prepared):
    corpus = prepared(write_lines(tmp_path / "a.jsonl", TEXTS), validation_documents=7)
    assert (len(corpus.validation), len(documents(corpus))) == (7, 393)


def test_copies_of_a_document_stay_on_one_side(tmp_path, prepared):
    corpus = prepared(write_lines(tmp_path / "a.jsonl", TEXTS * 3))
    assert len(corpus.validation) == 20
    assert not {document.text for document in corpus.validation} & set(documents(corpus))
    assert len(documents(corpus)) == 3 * 380


def test_training_documents_in_the_validation_set_are_excluded(tmp_path, prepared):
    train, validation = write_lines(tmp_path / "a.jsonl", TEXTS), write_lines(tmp_path / "b.jsonl", TEXTS[:50])
    corpus = prepared(train, validation=[str(validation)])
    assert sorted(document.text for document in corpus.validation) == sorted(TEXTS[:50])
    assert documents(corpus) == TEXTS[50:]
    with pytest.raises(
        UserError,
        match="no text is left for train, because all 50 training documents are copies",
    ):
        prepared(validation, validation=[str(train)])


def test_order_of_validation_files_changes_nothing(tmp_path, prepared):
    train = write_lines(tmp_path / "a.jsonl", TEXTS[:100])
    files = [str(write_lines(tmp_path / f"{n}.jsonl", TEXTS[100 * n : 100 * n + 50])) for n in (1, 2, 3)]
    one, other = prepared(train, validation=files), prepared(train, validation=files[::-1])
    order = [document.text for document in one.validation]
    assert order == [document.text for document in other.validation]
    sample = choose(one.validation, 600)
    assert len(sample) < 30 and {TEXTS.index(document.text) // 100 for document in sample} == {1, 2, 3}


def test_max_documents_limits_training_documents(tmp_path, prepared):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    validation = write_lines(tmp_path / "b.jsonl", ["validation"])
    assert documents(prepared(path, validation=[str(validation)], max_documents=30)) == TEXTS[:30]
    with pytest.raises(UserError, match="data.max_documents=0"):
        prepared(path, max_documents=0)
    with pytest.raises(UserError, match="data.validation_documents=0"):
        prepared(path, validation_documents=0)


def test_few_documents_are_each_cut_at_a_paragraph_near_the_end(tmp_path, prepared):
    for name in ("a", "b"):
        paragraphs = [f"{name} {number}: " + "word " * 20 for number in range(100)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(paragraphs))
    corpus = prepared(tmp_path / "*.txt")
    assert len(corpus.validation) == len(documents(corpus)) == 2
    for document in corpus.validation:
        assert document.text[:4] in ("a 94", "a 95", "b 94", "b 95")
        assert document.n_bytes == len(document.text.encode()) == len(document.tokens)
    whole = {path.read_text() for path in tmp_path.glob("*.txt")}
    tails = [document.text for document in corpus.validation]
    assert {head + tail for head in documents(corpus) for tail in tails} >= whole


def test_document_without_a_break_is_cut_at_a_twentieth(tmp_path, prepared):
    (tmp_path / "a.txt").write_text("xy" * 500)
    corpus = prepared(tmp_path / "a.txt")
    assert (corpus.train_tokens, corpus.validation[0].n_bytes) == (951, 50)


def test_too_little_text_is_refused(tmp_path, prepared):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(UserError, match="data=texts is too small: no text is left for validation"):
        prepared(tmp_path / "a.txt")


WORDS = [f"Lantern {number} stands in the garden; the harbour is quiet." for number in range(60)]
NEAR = {
    "line ends": lambda text: text + "\r\n",
    "spaces": lambda text: "  " + text.replace(" ", "\t "),
    "case": str.upper,
    "punctuation": lambda text: text.replace(";", " \u2014").replace(".", "!"),
    "Unicode form": lambda text: text.replace("fi", "\ufb01").replace("quiet", "q\uff55iet"),
    "a full copy": str,
}


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR)
def test_near_copies_of_validation_leave_training_and_are_counted(tmp_path, prepared, capsys, change):
    train = write_lines(tmp_path / "a.jsonl", [change(text) for text in WORDS])
    validation = write_lines(tmp_path / "b.jsonl", WORDS[:20])
    corpus = prepared(train, validation=[str(validation)])
    assert documents(corpus) == [change(text) for text in WORDS[20:]]
    assert corpus.copies.training == 20
    assert (
        "Documents of training left out because they are copies of validation documents: 20." in capsys.readouterr().out
    )


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR)
def test_near_copies_within_validation_count_once(tmp_path, prepared, change):
    train = write_lines(tmp_path / "a.jsonl", TEXTS)
    eight = [text for text in WORDS[:5] for _ in range(4)] + [change(text) for text in WORDS[:5] for _ in range(4)]
    once = prepared(train, validation=[str(write_lines(tmp_path / "b.jsonl", eight))])
    again = prepared(train, validation=[str(write_lines(tmp_path / "c.jsonl", eight[::-1]))])
    assert len(once.validation) == 5 and once.copies.validation == 35
    assert [document.text for document in once.validation] == [document.text for document in again.validation]


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR)
def test_near_copies_stay_on_one_side_of_a_split_by_hash(tmp_path, prepared, change):
    texts = [each for text in WORDS for each in (text, change(text))]
    one, other = (
        prepared(write_lines(tmp_path / name, order), validation_documents=3)
        for name, order in (("a.jsonl", texts), ("b.jsonl", random.Random(1).sample(texts, len(texts))))
    )
    assert [document.text for document in one.validation] == [document.text for document in other.validation]
    assert len(one.validation) == 3 and len(documents(one)) == 2 * 57 and one.copies.training == 6


def test_texts_of_other_words_are_no_copies():
    texts = ["1 11", "11 1", "a b", "ab", "caf\u00e9", "cafe", "+", "-", "\u2014", "x", "\u4e00", "\u4e01"]
    assert len({copy_hash(text) for text in texts}) == len(texts)


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_copies_in_ascii_are_those_of_the_general_rule(text):
    assert (copy_hash(text) == copy_hash(f"{text} \u2014")) == any(map(str.isalnum, text))
