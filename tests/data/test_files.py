import json

import pandas
import pytest
import zstandard

from bench.data.files import read_documents
from bench.errors import UserError

TEXTS = ["Grüße\nzwei", "2020-01-01", "12", "two\r\nlines \U0001f600", "last"]  # some that a reader might reinterpret


def write_all_kinds(folder):
    lines = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)).encode()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_bytes(text.encode())
    (folder / "a.jsonl").write_bytes(lines)
    middle = lines.index(b"\n") + 1  # two frames, as `cat a.zst b.zst` makes them
    frames = zstandard.compress(lines[:middle]) + zstandard.compress(lines[middle:])
    (folder / "a.jsonl.zst").write_bytes(frames)
    (folder / "[odd] name").mkdir()
    pandas.DataFrame({"text": TEXTS}).to_parquet(folder / "[odd] name" / "a.parquet")


def test_every_kind_yields_the_same_tokens(tmp_path, prepared):
    write_all_kinds(tmp_path)
    (tmp_path / "validation.txt").write_text("held out")
    kinds = ["*.jsonl", "a.jsonl.zst", "[odd] name/a.parquet", "[0-9].txt"]
    values = {"validation": [str(tmp_path / "validation.txt")]}
    corpora = [prepared(tmp_path / kind, **values) for kind in kinds]
    assert len({corpus.train.tobytes() for corpus in corpora}) == 1
    assert corpora[0].tokenizer.decode(corpora[0].train).split("\ufffd") == [*TEXTS, ""]
    assert [document.text for document in corpora[0].validation] == ["held out"]


def test_blank_documents_and_a_byte_order_mark_are_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " \\n"}\n\n{"text": "b"}\n')
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    assert list(read_documents(tmp_path / "a.jsonl", "text")) == ["b"]
    assert list(read_documents(tmp_path / "a.txt", "text")) == ["text"]


def _cut_between_lines():
    """A zstd frame that stops after a whole block which ends with a whole line."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(b'{"text": "a"}\n' * 9) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "data.train: .*a.txt is empty"),
        ("a.txt", b" \n", "a.txt holds no text"),
        ("a.txt", b"text\0text", "a.txt: binary data .*offset 4"),
        ("a.txt", b"caf\xe9 au lait", "a.txt: not UTF-8 .byte 0xe9 at offset 3.*iconv"),
        ("a.pdf", b"text", r"a.pdf is none of the kinds that can be read: .txt, .jsonl, .jsonl.zst, .parquet"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', "a.jsonl, line 2: not whole JSON"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "a.jsonl, line 2: not a JSON object"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"body": "b", "id": 1}\n',
            "line 2: no text under data.text_key='text' .found 'body'",
        ),
        ("a.jsonl", b'{"text": 3}\n', "line 1: no text under data.text_key='text' .'text' is int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: half a surrogate pair"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', "line 2: not UTF-8"),
        ("a.jsonl.zst", b"not compressed", "a.jsonl.zst is not a whole zstd file"),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "a"}\n' * 9)[:2], "a.jsonl.zst was cut short"),
        ("a.jsonl.zst", _cut_between_lines(), "a.jsonl.zst was cut short"),
        ("a.jsonl", b"[" * 100_000, "line 1: not whole JSON"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "line 1: not whole JSON"),
        ("a.parquet", b"not parquet", "a.parquet cannot be read as parquet"),
    ],
)
def test_files_that_do_not_do(name, content, message, tmp_path, prepared):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        prepared(tmp_path / name)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("*")), "nothing half-made is left behind"


def test_a_parquet_file_without_the_column(tmp_path, prepared):
    pandas.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 1: no text under data.text_key='text' .found 'body'"):
        prepared(tmp_path / "a.parquet")


def test_paths_that_do_not_do(tmp_path, prepared):
    with pytest.raises(UserError, match="data.train: cannot read .*missing.txt: No such file"):
        prepared(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="data.train: no file matches .*none"):
        prepared(tmp_path / "none*.txt")
    with pytest.raises(UserError, match=r"is a folder. Name the files in it, for example .*/\*.txt"):
        prepared(tmp_path)
    with pytest.raises(UserError, match=r"data.train is empty.*data.train=\[texts/\*.txt\]"):
        prepared()
