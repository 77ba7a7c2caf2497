"""Runs the trials: copies of the source, with a regression injected or unchanged, each running the ci study.

Two trials run at a time, so that both cores are busy. The gate compares each with a baseline of the same batch, which
ran alone before them. The studies are kept. An interrupted validation continues with a new batch and a baseline of its
own, because the machine or the source may have changed; a complete one is only evaluated again.
"""

from __future__ import annotations

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
from bench.formats import now
from bench.gate.compare import Verdict, compare
from bench.gate.load import Side, read_side, title
from bench.gate.rules import rule_of
from bench.measure.machine import environment, git_commit, make_machine
from tools.gate_validation.archive import BASELINE, batches, keep, pack, unpacked
from tools.gate_validation.mutants import DETERMINISTIC, LEAKS, SLOWER, Mutant, copy_source, inject
from tools.gate_validation.record import FILE, Batch, Trial, Validation, load_validation, save_validation

_SIDE_BY_SIDE = 2
_FINDINGS = 4  # kept of each trial


def validate(config: RunConfig, reruns: int, folder: Path, command: str) -> Validation:
    """Run the missing trials with the settings of the ci study, evaluate all, and write `validation.json` in `folder`.

    Ctrl-C stops it after the current trials; the next call continues.
    """
    studies, trials = unpacked(folder), dict(all_trials(reruns))
    new = Validation(command=command, side_by_side=_SIDE_BY_SIDE)
    validation = load_validation(folder / FILE) if (folder / FILE).exists() else new
    done = {path.name for batch in batches(studies) for path in batch.iterdir()}
    missing = [name for name in trials if name not in done]
    random.Random(0).shuffle(missing)  # so that other load on the machine affects all kinds alike
    if missing:
        validation.batches.append(_batch(config))
        save_validation(validation, folder)
        prepare(config.data)  # once, for all trials
        _run_all(missing, trials, studies / str(len(validation.batches)), Path(config.data.cache_dir).resolve())
    validation.trials = judge_all(trials, studies)
    validation.judged_by = git_commit()
    save_validation(validation, folder)
    pack(folder)
    return validation


def all_trials(reruns: int) -> Iterator[tuple[str, Mutant | None]]:
    """Name and injected regression of each trial."""
    for mutant in (*DETERMINISTIC, *LEAKS, *SLOWER):
        yield mutant.name, mutant
    for number in range(reruns):
        yield f"rerun_{number:03}", None


def _batch(config: RunConfig) -> Batch:
    """The commit and machine of the trials to run now. Raises UserError if the source differs from its commit."""
    commit = git_commit()
    if commit is not None and commit.endswith("-dirty"):
        raise UserError("the source has uncommitted changes; commit them first, because trials name their commit.")
    return Batch(created=now(), git_commit=commit, environment=environment(make_machine(config).device))


def _run_all(missing: Sequence[str], trials: dict[str, Mutant | None], batch: Path, cache: Path) -> None:
    """Run a baseline, then the missing trials, on a copy of the current source."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        source = Path(place)
        copy_source(source)
        print("The baseline.", flush=True)
        _run_one(source, None, cache, batch / BASELINE)
        if not any((batch / BASELINE).iterdir()):
            (batch / BASELINE).rmdir()
            raise UserError("the baseline's ci study failed; run python -m bench +study=ci to see why.")
        running = [pool.submit(_run_one, source, trials[name], cache, batch / name) for name in missing]
        try:
            for future in tqdm(as_completed(running), total=len(running), unit="trial"):
                future.result()
        except KeyboardInterrupt:
            print("\nStopping after the current trials; the same command continues.", flush=True)
            pool.shutdown(cancel_futures=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_one(source: Path, mutant: Mutant | None, cache: Path, kept: Path) -> None:
    """Run the ci study in a copy of the source with `mutant`, undisturbed by Ctrl-C, and keep its study."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        inject(mutant, place, source)
        (place / ".cache").mkdir()
        (place / ".cache" / "bench").symlink_to(cache)  # where a run looks by default
        command = [sys.executable, "-m", "bench", "+study=ci"]
        subprocess.run(command, cwd=place, capture_output=True, start_new_session=True)
        study = place / "results" / "ci"
        keep(study if (study / "ci.json").exists() else None, kept)


def judge_all(trials: dict[str, Mutant | None], studies: Path) -> list[Trial]:
    """The gate's verdict on every trial whose study exists, in the order of `trials`."""
    found = {}
    for batch in batches(studies):
        baseline = read_side(batch / BASELINE)
        for name in (path.name for path in batch.iterdir() if path.name in trials):
            found[name] = judge(name, int(batch.name), trials[name], baseline, batch / name)
    return [found[name] for name in trials if name in found]


def judge(name: str, batch: int, mutant: Mutant | None, baseline: Side, study: Path) -> Trial:
    """The gate's verdict on a trial's study, an empty folder if it failed, compared with the baseline. The speed of an
    unchanged re-run counts even if the machine was busy, so that no false positive goes uncounted.
    """
    trial = Trial(
        name=name,
        batch=batch,
        mutant=mutant.words if mutant else None,
        slows=mutant.slows if mutant else False,
        findings=["the study itself failed"],
        findings_total=1,
    )
    if not any(study.iterdir()):
        return trial
    current = read_side(study)
    verdict = compare(baseline, current if mutant else replace(current, encoder_seconds=None))
    failing = [finding for finding in verdict.findings if finding.fails]
    rules = [rule_of(finding.figure, finding.method) for finding in failing]
    findings = [f"{f.kind}: {title(f.method)}, {f.words}: {f.was} -> {f.now}" for f in failing]
    findings = [*verdict.broken, *findings]
    trial.status = verdict.status
    trial.findings, trial.findings_total = findings[:_FINDINGS], len(findings)
    trial.slower = any(rule is not None and rule.sampled for rule in rules)
    trial.speed = _speed(verdict)
    return trial


def _speed(verdict: Verdict) -> dict[str, float]:
    was, now = verdict.baseline, verdict.current.figures
    return {" ".join(key): now[key].value / was.figures[key].value for key in was.samples if key in now}
