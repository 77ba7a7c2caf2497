import bz2
import gzip
import json
import lzma
import os
from datetime import time

import pandas
import pyarrow.parquet
import pytest
import zstandard

from bench.data.files import file_identity, read_documents
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
    (folder / "b.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    (folder / "b1.json").write_text(json.dumps({"text": TEXTS[0]}, indent=1))
    (folder / "b2.json").write_text(json.dumps([{"text": text} for text in TEXTS[1:]]))
    (folder / "c.json.xz").write_bytes(lzma.compress(lines))
    (folder / "d.NDJSON.bz2").write_bytes(bz2.compress(lines))
    pandas.DataFrame({"id": range(5), "text": TEXTS}).to_csv(folder / "e.csv.gz", index=False, lineterminator="\n")
    pandas.DataFrame({"text": TEXTS, "id": range(5)}).to_csv(folder / "f.tsv", sep="\t", index=False)
    for number, text in enumerate(TEXTS):
        (folder / "below").mkdir(exist_ok=True)
        (folder / "below" / f"{number}.TXT.zst").write_bytes(zstandard.compress(text.encode()))
    (folder / "below" / "LICENSE").write_text("not read")
    (folder / "below" / ".hidden.txt").write_text("not read")
    (folder / "[odd] name").mkdir()
    pandas.DataFrame({"text": TEXTS}).to_parquet(folder / "[odd] name" / "a.parquet")


def test_every_kind_and_compression_gives_the_same_tokens(tmp_path, prepared):
    write_all_kinds(tmp_path)
    (tmp_path / "validation.txt").write_text("validation")
    kinds = [
        "*.jsonl",
        "a.jsonl.zst",
        "[odd] name/a.parquet",
        "[0-9].txt",
        "b.json",
        "b[12].json",
        "c.json.xz",
        "d.NDJSON.bz2",
    ]
    kinds += ["e.csv.gz", "f.tsv", "below"]
    values = {"validation": [str(tmp_path / "validation.txt")]}
    corpora = [prepared(tmp_path / kind, **values) for kind in kinds]
    assert len({corpus.train.tobytes() for corpus in corpora}) == 1
    assert corpora[0].tokenizer.decode(corpora[0].train).split("\ufffd") == [*TEXTS, ""]
    assert [document.text for document in corpora[0].validation] == ["validation"]


def test_blank_documents_and_byte_order_marks_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " \\n"}\n\n{"text": "b"}\n')
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "b"}')
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbftext,id\nb,1\n", mtime=0))
    assert list(read_documents(tmp_path / "a.jsonl", "text")) == ["b"]
    assert list(read_documents(tmp_path / "a.txt", "text")) == ["text"]
    assert list(read_documents(tmp_path / "b.jsonl", "text")) == ["b"]
    assert list(read_documents(tmp_path / "b.csv.gz", "text")) == ["b"]


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
        ("a.pdf", b"text", r"a.pdf is none of the kinds that can be read: .txt, .jsonl, .*parquet"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', "a.jsonl, line 2: invalid JSON"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "a.jsonl, line 2: not a JSON object"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"body": "b", "id": 1}\n',
            "line 2: no text under data.text_key='text' .found 'body'",
        ),
        ("a.jsonl", b'{"text": 3}\n', "line 1: no text under data.text_key='text' .'text' is int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: half a surrogate pair"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', "line 2: not UTF-8"),
        ("a.jsonl.zst", b"not compressed", "a.jsonl.zst is not a valid zstd file"),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "a"}\n' * 9)[:2], "a.jsonl.zst is truncated"),
        ("a.jsonl.zst", _cut_between_lines(), "a.jsonl.zst is truncated"),
        ("a.txt.gz", b"not compressed", "a.txt.gz is not a valid gzip file"),
        ("a.json.gz", gzip.compress(b'{"text": "a"}', mtime=0)[:-9], "a.json.gz is truncated"),
        ("a.csv.xz", lzma.compress(b"text\na\n")[:-9], "a.csv.xz is truncated"),
        ("a.csv.bz2", b"not compressed", "a.csv.bz2 is not a valid bzip2 file"),
        ("a.json", b'[{"text": "a"}, {"text": 3}]', "a.json, row 2: no text under .*'text' is int"),
        ("a.json", b'[{"text": "a"}', "a.json: invalid JSON"),
        ("a.csv", b"body\na\n", "a.csv, line 2: no text under .*found 'body'"),
        ("a.csv", b'text\n"a\n', "a.csv, line 2: not CSV"),
        ("a.csv", b"text,text\na,b\n", "a.csv, line 1: several columns are named 'text'"),
        ("a.csv", b"text,id\na, and b,1\n", "a.csv, line 2: more cells than the 2 columns. Quote cells"),
        ("a.csv", b"id;text\n1;a\n", "a.csv, line 1: columns are separated by semicolons. Separate them by ','"),
        ("a.csv", b"id,text\r1,a\r", "a.csv, line 1: lines end in carriage returns alone"),
        ("a.csv", b"1," + b"a" * 900 + b"\n2,b\n", r"line 2: no text under .*found '1', 'a{24}'.. Set"),
        ("a.jsonl", b'{"text": "a"}\r{"text": "b"}\r', "a.jsonl, line 1: lines end in carriage returns alone"),
        ("a.csv", b"text\n\xe9\n", "a.csv, line 2: not UTF-8"),
        ("a.txt", "text".encode("utf-16"), "a.txt: binary data .*iconv converts UTF-16"),
        ("a.jsonl", b"[" * 100_000, "line 1: invalid JSON"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "line 1: invalid JSON"),
        ("a.parquet", b"not parquet", "a.parquet cannot be read as parquet"),
    ],
)
def test_unusable_file_is_one_line_and_leaves_no_cache(name, content, message, tmp_path, prepared):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        prepared(tmp_path / name)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("*")), "nothing half-made is left behind"


def test_parquet_without_the_column_is_refused(tmp_path, prepared):
    pandas.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 1: no text under data.text_key='text' .found 'body'"):
        prepared(tmp_path / "a.parquet")


def test_path_without_a_readable_file_is_refused(tmp_path, prepared):
    with pytest.raises(UserError, match="data.train: .*missing.txt does not exist"):
        prepared(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="data.train: no file matches .*none"):
        prepared(tmp_path / "none*.txt")
    with pytest.raises(UserError, match="data.train: the folder .* holds no file of a kind that can be read: .txt"):
        prepared(tmp_path)
    with pytest.raises(UserError, match=r"data.train is empty.*data.train=\[texts/\*.txt\]"):
        prepared()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("link.txt", ".*link.txt does not exist: it is a link to gone.txt"),
        ("loop.txt", "cannot read .*loop.*: Too many levels of symbolic links"),
        ("pipe.txt", ".*pipe.txt is no regular file"),
        ("a" * 5000 + ".txt", "cannot read .*: File name too long"),
        ("a\0.txt", "cannot read .*: embedded null byte"),
    ],
)
def test_path_that_is_no_file_is_refused_with_the_cause(name, message, tmp_path, prepared):
    (tmp_path / "link.txt").symlink_to("gone.txt")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=f"data.train: {message}") as error:
        prepared(tmp_path / name)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


def test_parquet_reads_the_text_column_alone(tmp_path):
    """A column of a kind that `datasets` does not know, and features of a later version of it, do no harm."""
    features = {"info": {"features": {"text": {"_type": "Novel"}}}}
    table = pyarrow.table({"when": [time(1), time(2)], "text": ["a", "b"]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet", "text")) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n{"text": "b"}\n{"text": null}\n'),
        ("a.json", b'[{"text": "a"}, {"text": null}, {"text": "b"}, {"text": null}]'),
        ("a.csv", b"id,text\n1,a\n2\n3,b\n4\n"),
        ("a.parquet", ["a", None, "b", None]),
    ],
)
def test_null_text_is_skipped_and_counted(name, content, tmp_path, prepared, capsys):
    if isinstance(content, list):
        pandas.DataFrame({"text": content}).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    nulls = {}
    assert list(read_documents(tmp_path / name, "text", nulls)) == ["a", "b"]
    assert list(read_documents(tmp_path / name, "text", nulls)) == ["a", "b"], "a second reading counts afresh"
    assert nulls == {tmp_path / name: 2}
    (tmp_path / "validation.txt").write_text("validation")
    prepared(tmp_path / name, validation=[str(tmp_path / "validation.txt")])
    assert f"Rows of {tmp_path / name} skipped because data.text_key='text' is null: 2." in capsys.readouterr().out


def test_file_of_nulls_alone_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n')
    with pytest.raises(UserError, match="a.jsonl holds no text"):
        list(read_documents(tmp_path / "a.jsonl", "text"))


def test_csv_cell_may_be_a_long_document(tmp_path):
    (tmp_path / "a.csv").write_text('text\n"' + "one, two\n" * 40_000 + '"\n')
    assert [len(text) for text in read_documents(tmp_path / "a.csv", "text")] == [360_000]


@pytest.mark.parametrize(("name", "kind"), [("a.b.txt", ".txt"), ("a.jsonl.zst", ".zst"), ("a.TXT.zst", ".txt.zst")])
def test_file_identity_keeps_the_kinds_of_earlier_records(name, kind, tmp_path):
    (tmp_path / name).write_bytes(b"text")
    assert file_identity(tmp_path / name)[0] == kind


def test_fingerprint_of_a_text_file_is_that_of_earlier_versions(tmp_path, prepared):
    (tmp_path / "a.txt").write_text("word " * 400)
    assert prepared(tmp_path / "a.txt").fingerprint == "ed048c40ef9f"
