"""Numbers as people read them."""

import pytest

from bench.formats import aligned, binary, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0123, "12.3 ms"),
        (0.5, "0.5 s"),
        (119.6, "120 s"),
        (150, "2.5 min"),
        (9000, "2.5 h"),
        (200_000, "2.3 days"),
    ],
)
def test_duration_uses_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (10 * 1024, "10 KiB"),
        (2**20 - 1, "1,024 KiB"),
        (3.4 * 2**20, "3 MiB"),
        (2**31, "2,048 MiB"),
        (2**34, "16.0 GiB"),
    ],
)
def test_binary_uses_the_unit_that_suits_it(size, text):
    assert binary(size) == text


def test_aligned_rows_begin_their_columns_at_the_same_place():
    assert aligned([["a", "bb"], ["ccc", ""]]) == ["a    bb", "ccc"]
    assert aligned([["a", "10"], ["ccc", "9"]], numbers=True) == ["a    10", "ccc   9"]
