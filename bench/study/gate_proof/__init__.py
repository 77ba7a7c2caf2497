"""`+study=gate_proof`: does the gate catch what it must, and is it quiet otherwise?

Copies of the source, twenty with a regression planted, ten with a slower training step, and unchanged ones, run the
ci study as CI would, two at a time so that the other core is never idle; the gate judges each against one baseline.
The studies are kept: a stopped experiment goes on where it was, and one that is whole is only judged again.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from bench.config import RunConfig
from bench.data import prepare
from bench.errors import UserError
from bench.gate.compare import Verdict, compare
from bench.gate.proof import FILE, Proof, Trial, load_proof, save_proof
from bench.gate.read import Side, read_side
from bench.gate.rules import rule_of
from bench.machine import environment, git_commit, make_machine
from bench.study.gate_proof.plants import DETERMINISTIC, SLOWER, Plant, copy_source, plant_into
from bench.study.gate_proof.studies import BASELINE, keep, opened, pack

_SIDE_BY_SIDE = 2
_TOLD = 4  # findings kept of each trial


def run(config: RunConfig, command: str) -> int:
    """Run the trials that are missing, judge all, write `proof.json` and its page; status 1 where a bar is missed."""
    assert config.study is not None
    folder = Path(config.results_dir) / config.study.name
    studies, trials = opened(folder), dict(_trials(config.study.reruns))
    missing = [name for name in (BASELINE, *trials) if not (studies / name).exists()]
    proof = _begun(folder, config, command, bool(missing))
    if missing:
        prepare(config.data)  # so that the trials find it done
        _run_all(missing, trials, studies, Path(config.data.cache_dir).resolve())
    proof.trials = judge_all(trials, studies)
    proof.judged_by = git_commit()
    save_proof(proof, folder)
    pack(folder)
    from bench.report.proof import missed, write_proof

    print(f"report: {write_proof(proof, Path(config.reports_dir))}")
    return 1 if missed(proof) else 0


def _trials(reruns: int) -> Iterator[tuple[str, Plant | None]]:
    for plant in (*DETERMINISTIC, *SLOWER):
        yield plant.name, plant
    for number in range(reruns):
        yield f"rerun_{number:03}", None


def _begun(folder: Path, config: RunConfig, command: str, to_run: bool) -> Proof:
    """The experiment as it was begun, or begun now. Raises UserError where trials of other code would be added."""
    commit = git_commit()
    if to_run and commit is not None and commit.endswith("-dirty"):
        raise UserError("the source differs from its commit; commit it first, for a proof is of one commit.")
    if (folder / FILE).exists():
        proof = load_proof(folder / FILE)
        if to_run and proof.git_commit != commit:
            raise UserError(f"{folder} was begun at commit {proof.git_commit}, and this is {commit}; delete it first.")
        return proof
    proof = Proof(
        study=folder.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=commit,
        command=command,
        environment=environment(make_machine(config).device),
        side_by_side=_SIDE_BY_SIDE,
        trials=[],
    )
    save_proof(proof, folder)
    return proof


def _run_all(missing: Sequence[str], trials: dict[str, Plant | None], studies: Path, cache: Path) -> None:
    """Run and keep what is missing, the baseline by itself, of the source as it is now; the first error ends it."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        source = Path(place)
        copy_source(source)
        if BASELINE in missing:
            print("The baseline.", flush=True)
            _run_one(source, None, cache, studies / BASELINE)
            if not any((studies / BASELINE).iterdir()):
                (studies / BASELINE).rmdir()
                raise UserError("the baseline's ci study failed; run python -m bench +study=ci to see why.")
        waiting = [name for name in missing if name != BASELINE]
        running = [pool.submit(_run_one, source, trials[name], cache, studies / name) for name in waiting]
        try:
            for future in tqdm(as_completed(running), total=len(running), unit="trial"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_one(source: Path, plant: Plant | None, cache: Path, kept: Path) -> None:
    """Run a ci study by a copy of the source with `plant` in it, and keep what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plant_into(place, plant, source)
        command = [sys.executable, "-m", "bench", "+study=ci", f"results_dir={place / 'results'}"]
        subprocess.run([*command, f"data.cache_dir={cache}"], cwd=place, capture_output=True)
        study = place / "results" / "ci"
        keep(study if (study / "ci.json").exists() else None, kept)


def judge_all(trials: dict[str, Plant | None], studies: Path) -> list[Trial]:
    """What the gate says of every trial whose study is there."""
    baseline = read_side(studies / BASELINE)
    return [judge(name, plant, baseline, studies / name) for name, plant in trials.items() if (studies / name).exists()]


def judge(name: str, plant: Plant | None, baseline: Side, study: Path) -> Trial:
    """What the gate says of a trial's study, an empty folder where it broke down, against the baseline."""
    planted = {"planted": plant.words if plant else None, "slows": plant.slows if plant else False}
    if not any(study.iterdir()):
        return Trial(name=name, status=None, findings=["the study itself broke down"], findings_total=1, **planted)
    verdict = compare(baseline, read_side(study))
    failing = [finding for finding in verdict.findings if finding.fails]
    rules = [rule_of(finding.figure, finding.method) for finding in failing]
    told = [*verdict.broken, *(f"{f.kind}: {f.method}, {f.words}: {f.was} -> {f.now}" for f in failing)]
    return Trial(
        name=name,
        status=verdict.status,
        findings=told[:_TOLD],
        findings_total=len(told),
        slower=any(rule is not None and rule.sampled for rule in rules),
        speed=_speed(verdict),
        **planted,
    )


def _speed(verdict: Verdict) -> dict[str, float]:
    was, now = verdict.baseline.figures, verdict.current.figures
    return {
        f"{method} {name}": now[method, name].value / figure.value
        for (method, name), figure in was.items()
        if figure.samples and (method, name) in now
    }
