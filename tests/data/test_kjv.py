from bench.data.kjv import HELD_OUT, chapters


def windows(text, width=50):
    flat = text.replace("\n", " ")
    return [flat[start : start + width] for start in range(len(flat) - width + 1)]


def test_the_whole_bible_verse_by_verse():
    bible = chapters()
    assert len(bible) == 1189
    assert sum(text.count("\n") for text in bible.values()) == 31_102
    assert bible["Genesis", 1].startswith("Genesis 1\nIn the beginning God created the heavens and the earth.\nAnd the")
    assert bible["Psalms", 3].splitlines()[2].endswith("in God. Selah.")
    headings_aside = "".join(text.split("\n", 1)[1] for text in bible.values())
    assert not any(character.isdigit() for character in headings_aside)


def test_whole_books_are_held_out(kjv):
    books = {document.text.split("\n")[0].rsplit(" ", 1)[0] for document in kjv.validation}
    assert books == set(HELD_OUT)
    held_out = sum(document.n_bytes for document in kjv.validation)
    assert 0.04 < held_out / (held_out + kjv.train_tokens) < 0.06


def test_next_to_nothing_of_the_held_out_text_is_in_the_training_text(kjv):
    """Measured: 46 of 178,534 windows of 50 characters (0.026 %), all of them set phrases."""
    training = set(windows(kjv.tokenizer.decode(kjv.train)))
    held_out = [window for document in kjv.validation for window in windows(document.text)]
    assert len(held_out) > 150_000
    assert sum(window in training for window in held_out) / len(held_out) < 0.0005


def test_any_beginning_of_the_held_out_text_is_a_mixture(kjv):
    books = {document.text.split("\n")[0].rsplit(" ", 1)[0] for document in kjv.validation[:20]}
    assert len(books) >= 5


def test_training_documents_end_with_the_end_of_text_token(kjv):
    assert (kjv.train == kjv.tokenizer.eot).sum() == 1189 - len(kjv.validation)
    assert kjv.train[-1] == kjv.tokenizer.eot
