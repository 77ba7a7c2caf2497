import numpy as np
import pytest

from bench.config.schema import TokenizerConfig
from bench.data.kjv import chapters
from bench.data.tokenizer import ByteTokenizer, make_tokenizer
from bench.errors import UserError

TEXT = "Grüße, κόσμε! 東京 😀\r\n\ttwo  spaces <|endoftext|> end"


@pytest.fixture(scope="module")
def bpe():
    return make_tokenizer(TokenizerConfig("bpe", 600), list(chapters().values())[:100])


def test_bytes_round_trip():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.encode(TEXT)) == len(TEXT.encode())
    assert (tokenizer.vocab_size, tokenizer.eot) == (256, 255)
    assert tokenizer.decode(np.array([104, 105, 255], np.uint16)) == "hi\ufffd"


def test_bpe_round_trip_of_any_text(bpe):
    assert bpe.decode(bpe.encode(TEXT)) == TEXT
    assert bpe.vocab_size == 600
    assert bpe.eot not in bpe.encode(TEXT)
    assert len(bpe.encode("And God said unto them")) < 12


def test_pieces_are_readable(bpe):
    assert ByteTokenizer().pieces([104, 0xC3, 0xBC, 10]) == ["h", "\u00b7", "\u00b7", "\n"]
    assert bpe.pieces(bpe.encode(" the LORD said")) == [" the", " LORD", " said"]


def test_bpe_training_is_deterministic(bpe):
    again = make_tokenizer(TokenizerConfig("bpe", 600), list(chapters().values())[:100])
    other = make_tokenizer(TokenizerConfig("bpe", 600), list(chapters().values())[100:200])
    assert again.fingerprint == bpe.fingerprint != other.fingerprint


def test_pretrained_from_a_file(bpe, tmp_path, prepared):
    bpe.save(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT * 50)
    path = tmp_path / "tokenizer.json"
    corpus = prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=str(path))
    path.unlink()  # the cache keeps its own copy
    assert corpus.tokenizer.fingerprint == bpe.fingerprint
    assert corpus.validation[0].tokens.tolist() == bpe.encode(corpus.validation[0].text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer": "words"}, "data.tokenizer.kind='words' is not known. Choose one of bytes, bpe, pretrained"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "data.tokenizer.vocab_size=100 is too small"),
        ({"tokenizer": "pretrained"}, "needs data.tokenizer.name"),
        ({"tokenizer": "pretrained", "tokenizer_name": "nowhere/tokenizer.json"}, "there is no file nowhere"),
    ],
)
def test_bad_values(values, message, tmp_path, prepared):
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "a.txt", **values)


def test_a_tokenizer_that_cannot_end_a_document(tmp_path, prepared):
    from tokenizers import Tokenizer, models

    path = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0}, [])).save(str(path))
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(UserError, match="no end-of-text token"):
        prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=str(path))
    path.write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer.json"):
        prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=str(path))
