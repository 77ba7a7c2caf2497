"""`+study=gate_proof`: does the gate catch what it must, and is it quiet otherwise?

Copies of the source, twenty with a regression planted, ten with a slower training step, and unchanged ones, run the
ci study as CI would, two at a time so that the other core is never idle; the gate judges each against a baseline that
ran before them, alone. The studies are kept: where the experiment was stopped the next command adds a piece, with a
baseline of its own, for the machine or the source may be others by then; and one that is whole is only judged again.
"""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from bench.config.schema import RunConfig
from bench.data import prepare
from bench.errors import UserError
from bench.gate.compare import Verdict, compare
from bench.gate.load import Side, read_side
from bench.gate.rules import rule_of
from bench.measure.machine import environment, git_commit, make_machine
from tools.gate_validation.archive import BASELINE, keep, opened, pack, pieces
from tools.gate_validation.mutants import DETERMINISTIC, SLOWER, Plant, copy_source, plant_into
from tools.gate_validation.proof import FILE, Piece, Proof, Trial, load_proof, save_proof

_SIDE_BY_SIDE = 2
_TOLD = 4  # findings kept of each trial


def run(config: RunConfig, command: str) -> int:
    """Run the trials that are missing, judge all, write `proof.json` and its page; status 1 where a bar is missed.

    Ctrl-C ends it after the trials under way; the next command goes on.
    """
    assert config.study is not None
    folder = Path(config.results_dir) / config.study.name
    studies, trials = opened(folder), dict(all_trials(config.study.reruns))
    new = Proof(study=folder.name, command=command, side_by_side=_SIDE_BY_SIDE)
    proof = load_proof(folder / FILE) if (folder / FILE).exists() else new
    done = {path.name for piece in pieces(studies) for path in piece.iterdir()}
    missing = [name for name in trials if name not in done]
    random.Random(0).shuffle(missing)  # what else the machine does meets all kinds alike
    if missing:
        proof.pieces.append(_piece(config))
        save_proof(proof, folder)
        prepare(config.data)  # so that the trials find it done
        _run_all(missing, trials, studies / str(len(proof.pieces)), Path(config.data.cache_dir).resolve())
    proof.trials = judge_all(trials, studies)
    proof.judged_by = git_commit()
    save_proof(proof, folder)
    pack(folder)
    from tools.gate_validation.page import missed, write_proof

    print(f"report: {write_proof(proof, Path(config.reports_dir))}")
    return 1 if missed(proof) else 0


def all_trials(reruns: int) -> Iterator[tuple[str, Plant | None]]:
    """Name and plant of each."""
    for plant in (*DETERMINISTIC, *SLOWER):
        yield plant.name, plant
    for number in range(reruns):
        yield f"rerun_{number:03}", None


def _piece(config: RunConfig) -> Piece:
    """Where and of what the trials are that are run now. Raises UserError where that is no commit."""
    commit = git_commit()
    if commit is not None and commit.endswith("-dirty"):
        raise UserError("the source differs from its commit; commit it first, for a trial is of a commit.")
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Piece(created=created, git_commit=commit, environment=environment(make_machine(config).device))


def _run_all(missing: Sequence[str], trials: dict[str, Plant | None], piece: Path, cache: Path) -> None:
    """Run a baseline, then what is missing, of the source as it is now."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        source = Path(place)
        copy_source(source)
        print("The baseline.", flush=True)
        _run_one(source, None, cache, piece / BASELINE)
        if not any((piece / BASELINE).iterdir()):
            (piece / BASELINE).rmdir()
            raise UserError("the baseline's ci study failed; run python -m bench +study=ci to see why.")
        running = [pool.submit(_run_one, source, trials[name], cache, piece / name) for name in missing]
        try:
            for future in tqdm(as_completed(running), total=len(running), unit="trial"):
                future.result()
        except KeyboardInterrupt:
            print("\nStopping after the trials under way; the same command goes on.", flush=True)
            pool.shutdown(cancel_futures=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_one(source: Path, plant: Plant | None, cache: Path, kept: Path) -> None:
    """Run a ci study by a copy of the source with `plant` in it, out of reach of Ctrl-C, and keep what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plant_into(place, plant, source)
        (place / ".cache").mkdir()
        (place / ".cache" / "bench").symlink_to(cache)  # where a run by itself would look
        command = [sys.executable, "-m", "bench", "+study=ci"]
        subprocess.run(command, cwd=place, capture_output=True, start_new_session=True)
        study = place / "results" / "ci"
        keep(study if (study / "ci.json").exists() else None, kept)


def judge_all(trials: dict[str, Plant | None], studies: Path) -> list[Trial]:
    """What the gate says of every trial whose study is there, in the order of `trials`."""
    found = {}
    for piece in pieces(studies):
        baseline = read_side(piece / BASELINE)
        for name in (path.name for path in piece.iterdir() if path.name in trials):
            found[name] = judge(name, int(piece.name), trials[name], baseline, piece / name)
    return [found[name] for name in trials if name in found]


def judge(name: str, piece: int, plant: Plant | None, baseline: Side, study: Path) -> Trial:
    """What the gate says of a trial's study, an empty folder where it broke down, against the baseline.

    The speed of an unchanged one is judged however fast the machine was: a bar is not met by looking away.
    """
    trial = Trial(
        name=name,
        piece=piece,
        planted=plant.words if plant else None,
        slows=plant.slows if plant else False,
        findings=["the study itself broke down"],
        findings_total=1,
    )
    if not any(study.iterdir()):
        return trial
    current = read_side(study)
    verdict = compare(baseline, current if plant else replace(current, encoder_seconds=None))
    failing = [finding for finding in verdict.findings if finding.fails]
    rules = [rule_of(finding.figure, finding.method) for finding in failing]
    told = [*verdict.broken, *(f"{f.kind}: {f.method}, {f.words}: {f.was} -> {f.now}" for f in failing)]
    trial.status = verdict.status
    trial.findings, trial.findings_total = told[:_TOLD], len(told)
    trial.slower = any(rule is not None and rule.sampled for rule in rules)
    trial.speed = _speed(verdict)
    return trial


def _speed(verdict: Verdict) -> dict[str, float]:
    was, now = verdict.baseline.figures, verdict.current.figures
    return {
        f"{method} {name}": now[method, name].value / figure.value
        for (method, name), figure in was.items()
        if figure.samples and (method, name) in now
    }
