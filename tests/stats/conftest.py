"""Losses by document of two runs."""

import pandas as pd
import pytest

MOD_NATS = [205.0, 470.0, 790.0, 296.0, 580.0, 402.0]
DENSE_NATS = [210.0, 490.0, 810.0, 300.0, 600.0, 410.0]


def documents(nats):
    return pd.DataFrame({"document": list("abcdef"), "tokens": [200, 220, 240, 200, 210, 230], "nats": nats})


@pytest.fixture
def document_frames():
    """Cells of one seed each: MoD, which is better on every document, and dense."""
    return [[documents(MOD_NATS)]], [[documents(DENSE_NATS)]]
