"""The simulations behind docs/concepts/statistics.md, with fewer draws."""

import numpy as np
import pytest

from tools.coverage import documents, fits, intervals, verdicts
from tools.coverage.__main__ import PARTS, main


def percentages(cells):
    return [float(cell.split("\u00a0")[0].split(" ")[0]) for cell in cells]


def test_intervals_cover_at_least_nominally():
    _, _, rows = intervals.table(200, np.random.default_rng(1))
    assert all(share >= 90 for share in percentages(row[-1] for row in rows)), rows


def test_document_intervals_of_real_lengths_cover_where_closed():
    _, _, rows = documents.table(400, np.random.default_rng(1))
    for row in rows[2:]:  # at 16,384 tokens four of five intervals are open
        covered, plain = percentages(row[-2:])
        assert covered > plain and covered >= 91, row


def test_same_method_is_rarely_called_different_and_never_from_one_seed():
    _, _, rows = verdicts.same_method(300, np.random.default_rng(1))
    assert rows[0][-1].startswith("0.0")
    assert all(share <= 8 for share in percentages(row[-1] for row in rows)), rows


def test_operating_characteristic_decides_with_enough_seeds():
    _, columns, rows = verdicts.pooled(100, np.random.default_rng(1))
    found = {(row[0], row[1]): dict(zip(columns, row, strict=True)) for row in rows}
    (none, *_, large) = dict.fromkeys(row[0] for row in rows)
    assert percentages([found[none, "5"]["equivalent"]])[0] >= 80
    assert percentages([found[large, "3"]["better"]])[0] >= 90
    for row in rows:
        assert sum(percentages(row[2:6])) == pytest.approx(100, abs=2)


def test_main_prints_the_named_parts_as_markdown(capsys):
    main(["documents", "--draws", "20"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Intervals over validation documents") and printed[2].startswith("| tokens, effects |")
    with pytest.raises(SystemExit) as stopped:
        main(["nothing"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in PARTS)


@pytest.mark.parametrize("found", [fits.parabolas, fits.parametric])
def test_fit_intervals_cover_and_close(found):
    for own in fits.count("5 x 7, 0.3% noise", 0, found):
        assert own.covered >= 0.85 * own.ends and own.closed >= 0.9 * own.intervals, own


def test_kept_chunks_are_not_repeated(tmp_path):
    path, name = tmp_path / "kept.csv", "1 x 4, 0.2% noise"
    first = fits.simulate(fits.CHUNK, path, [name], fits.parabolas)
    written = path.read_text()
    again = fits.simulate(fits.CHUNK, path, [name], fits.parabolas)
    assert path.read_text() == written and len(first) == len(again) == 2
    assert first["covered"].tolist() == again["covered"].tolist()
