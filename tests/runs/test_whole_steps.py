"""Budgets that whole steps do not hold are refused with values that work."""

import re

import pytest

from bench.config.compose import configure
from bench.errors import UserError
from bench.runs.comparison import compare
from bench.runs.prepared import prepare_run

TINY = ["model.n_layers=2", "model.d_model=32", "model.n_heads=2", "model.context=32", "train.batch_size=16"]


def _configured(*words):
    return configure(["+method=mod", *TINY, *words])


def test_budget_of_too_few_steps_is_refused_before_anything_is_created(tmp_path):
    folders = [f"results_dir={tmp_path}/results", f"reports_dir={tmp_path}/reports"]
    config = _configured("train.budget_flops=1e8", *folders)
    with pytest.raises(UserError, match="train.budget_flops=1e\\+08 is not held by whole steps") as refused:
        compare([config], ["command"])
    assert not list(tmp_path.iterdir()) and "\n" not in str(refused.value)
    said = re.search(r"Raise it to (\S+), or lower train.batch_size from 16 to (\d+)", str(refused.value))
    larger, rows = said.groups()
    for words in ([f"train.budget_flops={larger}"], ["train.budget_flops=1e8", f"train.batch_size={rows}"]):
        prepare_run(_configured(*words)).check_whole_steps()


def test_whole_steps_do_not_matter_where_seconds_or_tokens_are_equal():
    for contract in ("wall_clock", "tokens"):
        prepare_run(_configured("train.budget_flops=1e8", f"contract={contract}")).check_whole_steps()
