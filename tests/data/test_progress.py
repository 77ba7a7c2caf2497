import time

import pytest

from bench.data import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.001)
    monkeypatch.setattr(progress, "_DRAWN_EVERY", 0.05)


def slowly(texts):
    for text in texts:
        time.sleep(0.2)
        yield text


def test_shown_passes_texts_on_and_counts_characters(capsys):
    assert list(progress.shown(slowly(["a" * 700, "b" * 800, "c"]), "reading")) == ["a" * 700, "b" * 800, "c"]
    terminal = capsys.readouterr()
    assert terminal.out == "" and "reading: 1.50k characters" in terminal.err


def test_shown_draws_while_one_text_takes_long(capsys):
    texts = progress.shown(slowly(["a"]), "reading")
    assert next(texts) == "a" and "reading: 0.00 characters" in capsys.readouterr().err
    texts.close()


def test_timed_names_the_work_that_takes_long(capsys):
    with progress.timed("training a BPE"):
        time.sleep(0.2)
    assert "training a BPE: 00:0" in capsys.readouterr().err


def test_timed_lets_errors_through_and_stops(capsys):
    with pytest.raises(ValueError, match="no"), progress.timed("work"):
        raise ValueError("no")
