"""Fits to the points of public studies, whose exponents are published: tests/fit/public/README.md."""

from pathlib import Path

import numpy as np
import pytest

from bench.fit import isoflop

PUBLIC = Path(__file__).with_name("public")


@pytest.mark.parametrize(
    ("name", "within", "published"),
    [
        ("marin_comma", None, 0.41),
        ("marin_dclm", None, 0.41),
        ("marin_nemotron", None, 0.41),
        ("ml_scalefit", None, 0.513),
        ("porian_tuned", None, 0.497),
        ("porian_tuned", 0.06, 0.497),
    ],
)
def test_isoflop_of_public_points_covers_the_published_exponent(name, within, published):
    (own,) = isoflop(PUBLIC / f"{name}.csv", bootstraps=100, progress=False, within=within).optima.values()
    exponent = own.params_exponent
    assert np.all(np.isfinite(exponent.ends))
    assert exponent.low <= published <= exponent.high and exponent.high - exponent.low < 0.35


def test_parametric_law_of_chinchilla_points_covers_the_published_one():
    law = isoflop(PUBLIC / "ml_scalefit.csv", bootstraps=100, progress=False).parametric["massivetext"]
    # Besiroglu et al. 2024, arXiv 2404.10102: from all runs, of which these are the isoFLOP slices.
    for name, published in (("E", 1.82), ("alpha", 0.348), ("beta", 0.366), ("params_exponent", 0.513)):
        own = getattr(law, name)
        assert own.low <= published <= own.high
        assert own.value == pytest.approx(published, rel=0.1) and own.high - own.low < 0.3 * own.value
