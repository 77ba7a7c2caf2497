import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.errors import UserError

TEXT = "\n\n".join(f"Paragraph {number} speaks of {number * number}." for number in range(400))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return path


def test_prepare_again_reads_the_cache(text_file, prepared, capsys):
    first = prepared(text_file, tokenizer="bpe")
    assert capsys.readouterr().out.startswith(f"Prepared texts: {first.train_tokens:,} training tokens (bpe-300), 1 ")
    second = prepared(text_file, tokenizer="bpe")
    assert capsys.readouterr().out == ""
    assert second.train.tobytes() == first.train.tobytes()
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert second.validation[0].tokens.tolist() == first.tokenizer.encode(first.validation[0].text)


def test_fingerprint_depends_on_content_and_tokenizer_not_paths(text_file, prepared, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = text_file.rename(tmp_path / "elsewhere" / "b.txt")
    text_file.write_text(TEXT)
    one, same = prepared(text_file), prepared(copy)
    assert one.fingerprint == same.fingerprint
    assert prepared(text_file, tokenizer="bpe").fingerprint != one.fingerprint
    text_file.write_text(TEXT + "!")
    assert prepared(text_file).fingerprint != one.fingerprint


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "validation.jsonl", "manifest.json", "tokenizer.json"])
@pytest.mark.parametrize("harm", ["truncated", "overwritten", "deleted"])
def test_damaged_cache_is_rebuilt(name, harm, text_file, prepared, tmp_path, capsys):
    before = prepared(text_file, tokenizer="bpe").train.tobytes()
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    content = path.read_bytes()
    path.unlink()
    if harm == "truncated":
        path.write_bytes(content[:-7])
    elif harm == "overwritten":
        path.write_bytes(bytes(len(content)))
    capsys.readouterr()
    assert prepared(text_file, tokenizer="bpe").train.tobytes() == before
    assert "damaged or incomplete" in capsys.readouterr().out
    assert path.read_bytes() == content


def test_concurrent_builders_share_one_cache(text_file, prepared, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        corpora = list(pool.map(lambda _: prepared(text_file), range(8)))
    assert len({corpus.train.tobytes() for corpus in corpora}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_cache_folder_that_cannot_be_written_is_refused(text_file, tmp_path, prepared):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(
        UserError, match="cannot write to .*cache.* is a file, not a folder. Set data.cache_dir to another folder"
    ):
        prepared(text_file)


def test_full_disk_leaves_no_cache(text_file, tmp_path):
    """A limit on file sizes imitates a full disk: the same call fails, half-way."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from bench.config.schema import DataConfig; from bench.data import prepare\n"
        "prepare(DataConfig(name='a', source='text', train=[sys.argv[1]], cache_dir=sys.argv[2]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(text_file), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "UserError: cannot write data.cache_dir=" in result.stderr.splitlines()[-1]
    assert "Free some space" in result.stderr
    assert not list((tmp_path / "cache").iterdir())
