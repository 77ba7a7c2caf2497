import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from bench.config.schema import TokenizerConfig
from bench.data.embedded import king_james
from bench.data.tokenizer import ByteTokenizer, load_tokenizer, make_tokenizer
from bench.errors import UserError

TEXT = "Grüße, κόσμε! 東京 😀\r\n\ttwo  spaces <|endoftext|> end"


@pytest.fixture(scope="module")
def bpe():
    return make_tokenizer(TokenizerConfig("bpe", 600), list(king_james().values())[:100])


def test_bytes_round_trip_any_text():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.encode(TEXT)) == len(TEXT.encode())
    assert (tokenizer.vocab_size, tokenizer.eot) == (256, 255)
    assert tokenizer.decode(np.array([104, 105, 255], np.uint16)) == "hi\ufffd"


def test_bpe_round_trips_any_text(bpe):
    assert bpe.decode(bpe.encode(TEXT)) == TEXT
    assert bpe.vocab_size == 600
    assert bpe.eot not in bpe.encode(TEXT)
    assert len(bpe.encode("And God said unto them")) < 12


def test_bpe_of_unbroken_letters_ends_and_round_trips():
    """Words are capped: training takes time quadratic in their length, so this would take hours."""
    letters = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 400_000))
    tokenizer = make_tokenizer(TokenizerConfig("bpe", 300), [letters])
    assert tokenizer.decode(tokenizer.encode(letters[:5000])) == letters[:5000]
    assert max(map(len, tokenizer.pieces(range(300)))) < 128 + len("<|endoftext|>")


def test_pieces_are_readable(bpe):
    assert ByteTokenizer().pieces([104, 0xC3, 0xBC, 10]) == ["h", "\u00b7", "\u00b7", "\n"]
    assert bpe.pieces(bpe.encode(" the LORD said")) == [" the", " LORD", " said"]


def test_bpe_training_is_deterministic(bpe):
    again = make_tokenizer(TokenizerConfig("bpe", 600), list(king_james().values())[:100])
    other = make_tokenizer(TokenizerConfig("bpe", 600), list(king_james().values())[100:200])
    assert again.fingerprint == bpe.fingerprint != other.fingerprint


def test_pretrained_tokenizer_file_is_kept_in_the_cache(bpe, tmp_path, prepared):
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
def test_bad_tokenizer_value_is_refused(values, message, tmp_path, prepared):
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "a.txt", **values)


def test_tokenizer_without_end_of_text_is_refused(tmp_path, prepared):
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0}, [])).save(str(path))
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(UserError, match="no end-of-text token"):
        prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=str(path))
    path.write_text("{}")
    with pytest.raises(UserError, match="not a valid tokenizer.json"):
        prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=str(path))


def _tokenizer_file(path, model, special, pre_tokenizer=None, normalizer=None, is_special=True):
    from tokenizers import AddedToken

    implementation = Tokenizer(model)
    implementation.decoder = decoders.Fuse()
    if special:
        implementation.add_tokens([AddedToken(special, special=is_special, normalized=not is_special)])
        if is_special:
            implementation.add_special_tokens([AddedToken(special, special=True)])
    if pre_tokenizer:
        implementation.pre_tokenizer = pre_tokenizer
    if normalizer:
        implementation.normalizer = normalizer
    implementation.save(str(path))
    return str(path)


def _words():
    return models.WordLevel({"[UNK]": 0, "[SEP]": 1, "river": 2, "stone": 3}, "[UNK]")


@pytest.mark.parametrize(
    ("model", "special", "is_special", "message"),
    [
        (models.BPE({"x": 0, "y": 1}, []), "</s>", True, "cannot be used: the document that begins with 'Stone.*empty"),
        (_words(), "[SEP]", True, "reads the text '.SEP.' as its end-of-text token"),
        (_words(), None, True, "reads the text '.SEP.' as its end-of-text token"),
        (models.BPE({"v": 0}, []), "<|endoftext|>", False, "reads the text '<.endoftext.>' as its end-of-text token"),
        (models.BPE({"v": 0, "w": 1}, []), "</s>", True, "'v' again and again, so there is nothing to learn"),
    ],
)
def test_tokenizer_that_cannot_keep_documents_apart_is_refused(model, special, is_special, message, tmp_path, prepared):
    path = _tokenizer_file(tmp_path / "t.json", model, special, pre_tokenizers.WhitespaceSplit(), None, is_special)
    (tmp_path / "a.txt").write_text("Stone river " * 40)
    (tmp_path / "v.txt").write_text("xyxy" if "empty" in message else "valid x v")
    with pytest.raises(UserError, match=message) as error:
        prepared(
            tmp_path / "a.txt",
            validation=[str(tmp_path / "v.txt")],
            tokenizer="pretrained",
            tokenizer_name=path,
        )
    assert "\n" not in str(error.value) and not list((tmp_path / "cache").glob("*"))


def test_end_of_text_token_may_be_one_that_text_cannot_make(tmp_path, prepared):
    """A word-level vocabulary in lower case has [SEP], not as a special token; no text becomes it."""
    path = _tokenizer_file(tmp_path / "t.json", _words(), None, pre_tokenizers.Whitespace(), normalizers.Lowercase())
    (tmp_path / "a.txt").write_text("Stone river [SEP] " * 40)
    corpus = prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=path)
    assert corpus.tokenizer.eot == 1 and (corpus.train == 1).sum() == 1
    assert "is decoded as" in corpus.loses


@pytest.mark.parametrize(
    ("model", "loses"),
    [
        (models.BPE({"v": 0, "x": 1}, []), "'alid x' is decoded as 'x'"),
        (_words(), "'valid x' is decoded as '[UNK][UNK]'"),
    ],
)
def test_tokenizer_that_loses_text_gets_no_bytes(model, loses, tmp_path, prepared):
    """Bits/byte would count bytes that the model never sees; nats/token remain."""
    name = _tokenizer_file(tmp_path / "t.json", model, "</s>", pre_tokenizers.WhitespaceSplit())
    (tmp_path / "a.txt").write_text("river xv " * 40)
    (tmp_path / "v.txt").write_text("valid x")
    values = {"validation": [str(tmp_path / "v.txt")], "tokenizer": "pretrained", "tokenizer_name": name}
    for corpus in (
        prepared(tmp_path / "a.txt", **values),
        prepared(tmp_path / "a.txt", **values),
    ):  # built, then cached
        assert corpus.loses == loses
        (document,) = corpus.validation
        assert document.n_bytes is None and len(document.tokens) == 2


def test_canonically_equal_characters_and_outer_space_are_no_loss(tmp_path, prepared):
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    path = _tokenizer_file(
        tmp_path / "t.json", models.BPE(alphabet, []), "</s>", pre_tokenizers.ByteLevel(True), normalizers.NFC()
    )
    implementation = Tokenizer.from_file(path)
    implementation.decoder = decoders.ByteLevel()
    implementation.save(path)
    (tmp_path / "a.txt").write_text("Gru\u0308\u00dfe " * 100)
    assert prepared(tmp_path / "a.txt", tokenizer="pretrained", tokenizer_name=path).train_tokens


def test_load_tokenizer_of_a_cut_file_is_one_line(bpe, tmp_path):
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    for content in (path.read_bytes()[:1000], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="tokenizer.json is not a valid tokenizer.json") as error:
            load_tokenizer(TokenizerConfig("bpe", 600), tmp_path)
        assert "\n" not in str(error.value)
