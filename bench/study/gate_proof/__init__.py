"""`+study=gate_proof`: does the gate catch what it must, and is it quiet otherwise?

Copies of the source, twenty with a regression planted, ten with a slower training step, and unchanged ones, run the
ci study as CI would, two at a time so that the other core is never idle; the gate judges each against one baseline.
A trial that was judged is not run again, so a stopped experiment goes on where it was.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from bench.config import RunConfig
from bench.data import prepare
from bench.errors import UserError
from bench.gate.accept import copy_study
from bench.gate.compare import Verdict, compare
from bench.gate.proof import FILE, Proof, Trial, load_proof, save_proof
from bench.gate.read import read_side
from bench.machine import environment, git_commit, make_machine
from bench.study.gate_proof.plants import DETERMINISTIC, SLOWER, Plant, plant_into

_SIDE_BY_SIDE = 2
_TOLD = 4  # findings kept of each trial


def run(config: RunConfig, command: str) -> int:
    """Run the trials that are missing, write `proof.json` and its page; status 1 where a bar is missed."""
    assert config.study is not None
    folder = Path(config.results_dir) / config.study.name
    proof = _opened(folder, config, command)
    prepare(config.data)  # so that the trials find it done
    cache = Path(config.data.cache_dir).resolve()
    baseline = folder / "baseline"
    if not baseline.exists():
        print("The baseline.", flush=True)
        with tempfile.TemporaryDirectory() as place:
            study = _study(Path(place), None, cache)
            if study is None:
                raise UserError("the baseline's ci study failed; run python -m bench +study=ci to see why.")
            copy_study(study, baseline)
    done = {trial.name for trial in proof.trials}
    waiting = [(name, plant) for name, plant in _trials(config.study.reruns) if name not in done]
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        running: list[Future[Trial]] = [pool.submit(_trial, *each, baseline, cache) for each in waiting]
        try:
            for future in tqdm(as_completed(running), total=len(running), unit="trial"):
                proof.trials.append(future.result())
                save_proof(proof, folder)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    from bench.report.proof import missed, write_proof

    print(f"report: {write_proof(proof, Path(config.reports_dir))}")
    return 1 if missed(proof) else 0


def _opened(folder: Path, config: RunConfig, command: str) -> Proof:
    """The experiment as far as it has come. Raises UserError where other code began it."""
    commit = git_commit()
    if (folder / FILE).exists():
        proof = load_proof(folder / FILE)
        if proof.git_commit != commit:
            raise UserError(f"{folder} was begun at commit {proof.git_commit}, and this is {commit}; delete it first.")
        return proof
    machine = make_machine(config)
    folder.mkdir(parents=True, exist_ok=True)
    return Proof(
        study=folder.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=commit,
        command=command,
        environment=environment(machine.device),
        side_by_side=_SIDE_BY_SIDE,
        trials=[],
    )


def _trials(reruns: int) -> Iterator[tuple[str, Plant | None]]:
    for plant in (*DETERMINISTIC, *SLOWER):
        yield plant.name, plant
    for number in range(reruns):
        yield f"rerun_{number:03}", None


def _trial(name: str, plant: Plant | None, baseline: Path, cache: Path) -> Trial:
    with tempfile.TemporaryDirectory() as place:
        return judge(name, plant, baseline, _study(Path(place), plant, cache))


def _study(place: Path, plant: Plant | None, cache: Path) -> Path | None:
    """The folder of a ci study by a copy of the source with `plant` in it; None where it broke down."""
    plant_into(place, plant)
    command = [sys.executable, "-m", "bench", "+study=ci", f"results_dir={place / 'results'}"]
    subprocess.run([*command, f"data.cache_dir={cache}"], cwd=place, capture_output=True)
    study = place / "results" / "ci"
    return study if (study / "ci.json").exists() else None


def judge(name: str, plant: Plant | None, baseline: Path, study: Path | None) -> Trial:
    """What the gate says of a trial's study against the baseline."""
    planted = {"planted": plant.words if plant else None, "slows": plant.slows if plant else False}
    if study is None:
        return Trial(name=name, status=None, findings=["the study itself broke down"], findings_total=1, **planted)
    verdict = compare(read_side(baseline), read_side(study))
    told = [f"{f.kind}: {f.method}, {f.words}: {f.was} -> {f.now}" for f in verdict.findings if f.fails]
    told = [*verdict.broken, *told]
    said = {"status": verdict.status, "findings": told[:_TOLD], "findings_total": len(told), "speed": _speed(verdict)}
    return Trial(name=name, **planted, **said)


def _speed(verdict: Verdict) -> dict[str, float]:
    was, now = verdict.baseline.figures, verdict.current.figures
    return {
        f"{method} {name}": now[method, name].value / figure.value
        for (method, name), figure in was.items()
        if figure.samples and (method, name) in now
    }
