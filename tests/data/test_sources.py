from bench.data.embedded import VALIDATION_BOOKS, king_james


def windows(text, width=50):
    flat = text.replace("\n", " ")
    return [flat[start : start + width] for start in range(len(flat) - width + 1)]


def test_king_james_has_every_verse_of_every_chapter():
    bible = king_james()
    assert len(bible) == 1189
    assert sum(text.count("\n") for text in bible.values()) == 31_102
    assert bible["Genesis", 1].startswith("Genesis 1\nIn the beginning God created the heavens and the earth.\nAnd the")
    assert bible["Psalms", 3].splitlines()[2].endswith("in God. Selah.")
    headings_aside = "".join(text.split("\n", 1)[1] for text in bible.values())
    assert not any(character.isdigit() for character in headings_aside)


def test_kjv_validation_is_whole_books(kjv):
    books = {document.text.split("\n")[0].rsplit(" ", 1)[0] for document in kjv.validation}
    assert books == set(VALIDATION_BOOKS)
    validation_bytes = sum(document.n_bytes for document in kjv.validation)
    assert 0.04 < validation_bytes / (validation_bytes + kjv.train_tokens) < 0.06


def test_kjv_validation_text_is_hardly_in_the_training_text(kjv):
    """Measured: 46 of 178,534 windows of 50 characters (0.026 %), all of them set phrases."""
    training = set(windows(kjv.tokenizer.decode(kjv.train)))
    validation = [window for document in kjv.validation for window in windows(document.text)]
    assert len(validation) > 150_000
    assert sum(window in training for window in validation) / len(validation) < 0.0005


def test_any_prefix_of_kjv_validation_mixes_books(kjv):
    books = {document.text.split("\n")[0].rsplit(" ", 1)[0] for document in kjv.validation[:20]}
    assert len(books) >= 5


def test_training_documents_end_with_end_of_text(kjv):
    assert (kjv.train == kjv.tokenizer.eot).sum() == 1189 - len(kjv.validation)
    assert kjv.train[-1] == kjv.tokenizer.eot


def test_kjv_fingerprint_is_that_of_committed_records(kjv):
    """Records of earlier versions hold it; a corpus of the same text must keep it."""
    assert kjv.fingerprint == "6b9b1c41c890"
