"""Studies packed into a few files: read as the loose ones are, and converted without a byte lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import zstandard
from gate_studies import change, write_study
from report_records import make_record, save

from bench.errors import UserError
from bench.gate.__main__ import main as gate
from bench.gate.load import read_side
from bench.records.convert import pack, unpack
from bench.records.packed import PACKS, encoded, find_records, is_file, read_bytes, texts_of
from bench.records.record import load_record
from bench.report.__main__ import main
from bench.report.load import read_results

ROOT = Path(__file__).resolve().parents[2]
NATS = [210.0, 490.0, 810.0, 300.0, 600.0]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed in range(2):
        save(tmp_path, make_record("dense", seed), NATS)
        save(tmp_path, make_record("mod", seed))
    return tmp_path / "tiny"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pack_then_unpack_gives_every_byte_back(study: Path):
    (study / "dense--s0" / "documents.csv").write_bytes("\ufeffa,b\r\n\u2028\x85é\x00,\n\n".encode())
    (study / "mod--s1" / "routing.json").write_bytes(b"")
    before = files(study)
    pack(study)
    assert set(files(study)) == set(PACKS.values())
    unpack(study)
    assert files(study) == before


def test_packed_bytes_do_not_depend_on_the_order_of_packing(study: Path, tmp_path: Path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    shutil.copytree(study, once)
    shutil.copytree(study, twice)
    shutil.move(twice / "dense--s0", tmp_path / "dense--s0")
    pack(once)
    pack(twice)
    shutil.move(tmp_path / "dense--s0", twice / "dense--s0")
    pack(twice)
    assert files(once) == files(twice)


def test_packed_study_reads_as_the_loose_one(study: Path, caplog):
    loose = read_results(study.parent)[0]
    side = read_side(study)
    pack(study)
    packed = read_results(study.parent)[0]
    assert read_side(study) == side
    assert [each.name for each in packed] == [each.name for each in loose]
    for own, other in zip(loose[0].groups[0].runs, packed[0].groups[0].runs, strict=True):
        assert own.record == other.record and own.routing == other.routing
        assert own.steps.equals(other.steps)
        assert own.documents is other.documents is None or own.documents.equals(other.documents)


def test_loose_run_replaces_the_packed_one_with_all_its_files(study: Path):
    pack(study)
    save(study.parent, make_record("mod", 0, loss=1.5))
    run = study / "mod--s0"
    (run / "routing.json").unlink()
    assert load_record(run / "record.json").quality.val_loss_nats == 1.5
    assert not is_file(run / "routing.json")  # the packed one is another run's
    assert len(find_records(study.parent)) == 4


def test_run_under_way_does_not_hide_the_packed_one(study: Path):
    pack(study)
    (study / "mod--s0").mkdir()
    (study / "mod--s0" / "steps.csv").write_text("step\n1\n", encoding="utf-8")
    assert b"loss" in read_bytes(study / "mod--s0" / "steps.csv")
    pack(study)
    assert (study / "mod--s0" / "steps.csv").exists()
    with pytest.raises(UserError, match=r"steps\.csv differs"):
        unpack(study)


def test_weights_are_neither_packed_nor_deleted(study: Path):
    weights = study / "mod--s0" / "model.safetensors"
    weights.write_bytes(b"weights")
    pack(study)
    assert files(study / "mod--s0") == {"model.safetensors": b"weights"}
    unpack(study)
    assert weights.read_bytes() == b"weights" and (study / "mod--s0" / "record.json").exists()


@pytest.mark.parametrize("convert", [pack, unpack])
def test_a_run_that_differs_is_not_overwritten(study: Path, convert):
    pack(study)
    save(study.parent, make_record("mod", 0, loss=1.5))
    before = files(study)
    with pytest.raises(UserError, match="mod--s0/record.json differs") as caught:
        convert(study)
    assert files(study) == before and "\n" not in str(caught.value)


def test_packing_that_was_interrupted_goes_on(study: Path, monkeypatch):
    before = files(study)
    unlink, left = Path.unlink, [3]

    def stop(path: Path, **more):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(study)
    assert len(read_results(study.parent)[0][0].groups[0].runs) == 4
    pack(study)
    assert set(files(study)) == set(PACKS.values())
    unpack(study)
    assert files(study) == before


def test_unpacking_that_was_interrupted_goes_on(study: Path, monkeypatch):
    before = files(study)
    pack(study)
    from bench.records import convert

    write, left = convert.write_atomically, [5]

    def stop(path: Path, content: str):
        left[0] -= 1
        if left[0] < 0:
            raise UserError("cannot write: No space left on device.")
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(convert, "write_atomically", stop)
        with pytest.raises(UserError, match="No space left"):
            unpack(study)
    assert len(read_results(study.parent)[0][0].groups[0].runs) == 4
    unpack(study)
    assert files(study) == before


@pytest.mark.parametrize("linked", ["mod--s0", "mod--s0/steps.csv"])
def test_a_link_is_not_packed(study: Path, tmp_path: Path, linked: str):
    (study / linked).rename(tmp_path / "elsewhere")
    (study / linked).symlink_to(tmp_path / "elsewhere")
    before = files(study)
    with pytest.raises(UserError, match="link"):
        pack(study)
    assert files(study) == before


def test_a_file_that_is_no_text_is_not_packed(study: Path):
    (study / "mod--s0" / "steps.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"steps\.csv is not UTF-8"):
        pack(study)
    assert not any((study / name).exists() for name in PACKS.values())


def compressed(text: str) -> bytes:
    return zstandard.ZstdCompressor().compress(text.encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zstandard",
        encoded({"mod--s0": "{}" * 999})[:-9],
        encoded({"mod--s0": "{}"}) + b"more",
        compressed('{"run": "a"'),
        compressed('{"run": "a"}\n'),
        compressed('["a", "b"]\n'),
        compressed('{"run": 1, "text": ""}\n'),
        compressed('{"run": "../a", "text": ""}\n'),
        compressed('{"run": "a", "text": ""}\n' * 2),
        b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little"),
    ],
)
def test_a_damaged_pack_is_one_line_and_hides_no_other_study(study: Path, content: bytes, capsys):
    save_other = study.parent / "other"
    shutil.copytree(study, save_other)
    pack(study)
    (study / "records.jsonl.zst").write_bytes(content)
    with pytest.raises(UserError, match=r"records\.jsonl\.zst is not a valid packed file") as caught:
        texts_of(study / "records.jsonl.zst")
    assert "\n" not in str(caught.value)
    comparisons, problems = read_results(study.parent)
    assert len(problems) == 1 and problems[0].startswith("tiny/records.jsonl.zst is not a valid packed file")
    assert len(comparisons[0].groups[0].runs) == 4


def test_a_damaged_pack_of_steps_is_named_for_the_runs_it_is_of(study: Path, capsys):
    pack(study)
    (study / "steps.jsonl.zst").write_bytes(b"damaged")
    (comparison,), problems = read_results(study.parent)
    assert problems == comparison.problems and len(comparison.groups[0].runs) == 4
    assert len(problems) == 1 and problems[0].startswith("tiny/steps.jsonl.zst is not a valid packed file")
    side = read_side(study)
    assert side.broken and "steps.jsonl.zst" in side.broken[0]


def test_the_command_packs_and_unpacks(study: Path, capsys):
    before = files(study)
    assert main(["--pack", str(study)]) == 0
    assert "4 runs in 4 packed files" in capsys.readouterr().out
    assert main(["--pack", str(study)]) == 0
    assert main(["--unpack", str(study)]) == 0
    assert files(study) == before
    assert main(["--unpack", str(study)]) == 2
    assert main(["--pack", str(study.parent)]) == 2
    assert main(["--pack", str(study / "nowhere")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["no packed runs" in errors[0], "no run" in errors[1], "not a folder" in errors[2]] == [True] * 3


def test_accept_keeps_a_packed_baseline_packed(tmp_path: Path, capsys):
    base, now = (write_study(tmp_path / name, make_record(name="ci"), seed=1) for name in ("base", "now"))
    pack(base)
    before = files(base)
    assert gate([str(base), str(now)]) == 0
    change(now, "mod-seed0", quality__val_loss_nats=2.5)
    assert gate([str(base), str(now)]) == 1
    assert gate([str(base), str(now), "--accept"]) == 0
    assert files(base).keys() == before.keys() and files(base) != before
    assert gate([str(base), str(now)]) == 0
    (base / "records.jsonl.zst").write_bytes(encoded({"thesis": "years of work"}))
    before = files(base)
    assert gate([str(base), str(now), "--accept"]) == 2
    assert "thesis" in capsys.readouterr().err and files(base) == before


@pytest.mark.parametrize("name", ["ci", "default", "isoflop_cpu"])
def test_committed_studies_are_small_and_pack_to_the_same_bytes(name: str, tmp_path: Path):
    committed = ROOT / "results" / name
    content = {path.name: path.read_bytes() for path in committed.iterdir() if path.is_file()}
    assert len(content) <= 20 and sum(map(len, content.values())) <= 2_000_000
    for path in content:
        shutil.copy(committed / path, tmp_path)
    unpack(tmp_path)
    assert {path.parent.name for path in tmp_path.glob("*/record.json")} == set(
        texts_of(committed / PACKS["record.json"])
    )
    pack(tmp_path)
    assert files(tmp_path) == content
