"""The composite action, the workflow that uses it, the GitLab template, and the script that they share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_studies import change, write_study
from report_records import make_record

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "bench.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}
GITLAB_SCRIPTS = {name: "\n".join(job["script"]) for name, job in GITLAB.items() if "script" in job}


def test_action_is_composite_and_its_steps_name_a_shell():
    assert ACTION["runs"]["using"] == "composite" and ACTION["description"]
    assert all(step.get("shell") == "bash" for step in STEPS if "run" in step)
    assert all("description" in each for each in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))


def test_action_uses_each_declared_input_and_step_only():
    text = yaml.safe_dump(ACTION)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    assert set(re.findall(r"steps\.([\w-]+)\.", text)) <= {step["id"] for step in STEPS if "id" in step}


def test_scripts_take_no_expression_into_their_text():
    assert not [name for name, script in SCRIPTS.items() if "${{" in script]  # it would run as code


@pytest.mark.parametrize("script", [*SCRIPTS.values(), *GITLAB_SCRIPTS.values()], ids=[*SCRIPTS, *GITLAB_SCRIPTS])
def test_script_is_valid_bash(script: str):
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_workflow_gives_the_action_inputs_that_it_has():
    uses = [step for job in WORKFLOW["jobs"].values() for step in job["steps"] if step.get("uses") == "./"]
    assert len(uses) == 2
    assert all(set(step["with"]) <= set(ACTION["inputs"]) for step in uses)


def test_gitlab_jobs_name_stages_and_jobs_that_exist():
    jobs = {name: job for name, job in GITLAB.items() if isinstance(job, dict)}
    for job in jobs.values():
        assert job.get("stage", GITLAB["stages"][0]) in GITLAB["stages"]
        assert {job.get("extends", ".bench"), *job.get("needs", ())} <= jobs.keys()
    assert GITLAB["pages"]["artifacts"]["paths"] == ["public"]


@pytest.mark.parametrize("script", [SCRIPTS["Append to the history's branch"]])
def test_rows_are_appended_to_a_branch_that_may_not_exist(tmp_path: Path, script: str):
    def run(*words: str, **variables: str) -> str:
        place, own = tmp_path / "clone", environment | variables
        done = subprocess.run(words, cwd=place, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BRANCH": "bench-history", "GITHUB_SHA": "c0ffee1"}
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin"], check=True)
    for number in range(2):
        subprocess.run(["git", "clone", "-q", tmp_path / "origin", tmp_path / "clone"], check=True, capture_output=True)
        (tmp_path / "clone" / "row.jsonl").write_text(f'{{"n": {number}}}\n', encoding="utf-8")
        run("bash", "-euo", "pipefail", "-c", script, ROW="row.jsonl")
        (tmp_path / "clone").rename(tmp_path / f"clone{number}")
    (tmp_path / "clone1").rename(tmp_path / "clone")
    run("git", "fetch", "origin")
    rows = run("git", "show", "origin/bench-history:history.jsonl")
    assert [json.loads(line) for line in rows.splitlines()] == [{"n": 0}, {"n": 1}]


def judge(base: Path, now: Path, scope: str, *options: str) -> int:
    words = [str(ROOT / ".ci" / "judge"), str(base), str(now), str(now.parent / "again"), scope, *options]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(words, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, check=False).returncode


def test_judge_keeps_the_exit_status_of_the_gate(tmp_path: Path):
    record = make_record(name="ci")
    base, now = write_study(tmp_path / "base", record, seed=1), write_study(tmp_path / "now", record, seed=2)
    assert judge(base, now, "speed", "--json", str(tmp_path / "gate.json")) == 0
    change(now, "mod-seed0", quality__val_loss_nats=2.5)
    assert judge(base, now, "all", "--markdown", str(tmp_path / "gate.md")) == 1
    assert judge(base, tmp_path / "nothing", "all") == 2
    assert (tmp_path / "gate.md").exists() and not (tmp_path / "again").exists()  # nothing was timed once more
