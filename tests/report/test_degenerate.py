"""Collapsed routing is named, and stands first among the caveats."""

import pytest
from report_records import make_record

from bench.records.record import RoutingDetail, RoutingStatistics
from bench.report.caveats import caveats
from bench.report.degenerate import degenerate
from bench.report.load import Group, Method, RunFiles

EVEN = [1 / 16] * 16
DEAD = [0.0, 0.0005, *[0.9995 / 14] * 14]


def _run(processed=None, **detail):
    routing = RoutingStatistics(fraction_processed_by_layer=processed)
    return RunFiles(make_record("mode", routing=routing), routing=RoutingDetail(**detail))


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (_run(expert_load={"0": EVEN, "1": DEAD}), "2 of 16 experts dead in layer 1"),
        (_run(expert_load={"0": [*DEAD[:8], *DEAD[2:10]]}, n_noop=8), "2 of 8 experts dead in layer 0"),
        (_run(expert_load={"0": [*DEAD[2:10], *DEAD[:8]]}, n_noop=8), None),
        (_run(expert_load={"0": [0.25] * 4 + [0.0] * 4}, n_noop=4), "no token skips layer 0"),
        (_run({"1": 0.0, "3": 0.13}), "layer 1 processes 0.0 % of tokens (planned: 12.5 %)"),
        (_run({"1": 1.0, "3": 0.03}), "layer 1 processes 100.0 % of tokens (planned: 12.5 %)"),
        (_run({"1": 0.13}, expert_load={"1": EVEN}), None),
        (RunFiles(make_record("dense")), None),
    ],
)
def test_degenerate_routing_is_named(run, found):
    said = degenerate(run)
    assert (said and said.replace("\u00a0", " ")) == (found and f"degenerate routing: {found}")


def test_degenerate_routing_is_the_first_caveat():
    group = Group("c0ffee", [Method("MoDE", [_run(expert_load={"1": DEAD})])])
    first = caveats(group)[0]
    assert first.endswith("degenerate routing: 2 of 16 experts dead in layer 1.") and first.startswith("mode-")
