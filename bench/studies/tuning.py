"""`+study=tuning`: equal effort for every method in choosing depth, width, batch size and learning rate at one budget.

Each method is searched by a quadratic response surface (bench/stats/response_surface.py). The candidates that the
surface predicts to be best are run with more seeds, and the lowest mean is chosen. Then fresh seeds, which chose
nothing, measure every candidate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from bench.config.compose import configure_method
from bench.config.schema import RunConfig, TuningConfig
from bench.config.validate import check
from bench.data import prepare
from bench.errors import UserError
from bench.flops.match import Plan, plan
from bench.formats import now
from bench.isoflop.run.scheduler import Ended
from bench.measure.machine import environment, git_commit, make_machine
from bench.records.files import make_folder
from bench.records.isoflop import Packing
from bench.records.tuning import FILE, Candidate, Settings, Tuned, Tuning
from bench.runs.pool import Job, Pool
from bench.runs.prepared import prepare_run
from bench.runs.run import count_flops
from bench.stats.response_surface import Point, Search, search

_LADDERS = ("depth", "width", "batch size", "learning rate")
_FIRST_SEED = 100  # so that the seeds of a default comparison, 0 and up, choose nothing


def run(config: RunConfig, command: str) -> int:
    """Run what is missing, write `tuning.json` and its page; returns 0.

    Finished runs are not run again, and stopped ones resume. Raises Interrupted after a signal, with checkpoints
    written.
    """
    assert config.study is not None and config.study.tuning is not None
    corpus, machine = prepare(config.data), make_machine(config)
    ended, vocab_size = Ended(), corpus.tokenizer.vocab_size
    searches = [_MethodSearch(name, config, vocab_size) for name in config.study.methods]
    for each in searches:  # counts that disagree are refused before anything is trained
        count_flops(prepare_run(each.job(each.start, _FIRST_SEED).config, vocab_size), corpus, machine)
    folder = make_folder(Path(config.results_dir) / config.study.name)

    def missing() -> list[Job]:
        due = [job for each in searches for job in each.missing(ended)]
        return sorted(due, key=lambda job: job.config.seed)  # searches first, since the other runs depend on them

    workers = config.study.tuning.workers or torch.get_num_threads()
    packing = Packing(workers=workers, threads=max(1, torch.get_num_threads() // workers), flops_per_second=0.0)
    with Pool(packing, machine, command, (0.0, 0.0), None) as pool:  # how many rounds there will be is not known
        pool.train(missing)
    study = Tuning(
        name=config.study.name,
        created=now(),
        git_commit=git_commit(),
        command=command,
        environment=environment(machine.device),
        budget=config.train.budget_flops,
        depths=config.study.tuning.depths,
        widths=config.study.tuning.widths,
        batch_sizes=config.study.tuning.batch_sizes,
        rates=config.study.tuning.rates,
        methods={each.name: each.result(ended) for each in searches},
    )
    study.save(folder / FILE)
    print(f"\n{_summary(study)}\nreport: {_page(folder, Path(config.reports_dir))}")
    return 0


def _page(folder: Path, reports: Path) -> Path:
    from bench.report.tuning import write_study  # draws: slow to import

    return write_study(folder / FILE, reports)


def _summary(study: Tuning) -> str:
    best = {name: tuned.candidates[0] for name, tuned in study.methods.items()}
    return "\n".join(
        f"{name}: {fmean(each.selection):.4f} nats/token; {each.settings.model_dump()}" for name, each in best.items()
    )


class _MethodSearch:
    """The runs of one method, as functions of those that have ended."""

    def __init__(self, name: str, config: RunConfig, vocab_size: int):
        assert config.study is not None and config.study.tuning is not None
        self.name, self.config, self.vocab_size = name, config, vocab_size
        self.values: TuningConfig = config.study.tuning
        self.method = configure_method(name)
        values = self.values
        self._depths = [depth for depth in values.depths if self._can_have(depth)]
        self.start = (self._depths.index(values.depths[values.start[0]]), *values.start[1:])
        self._sizes: Point = (len(self._depths), len(values.widths), len(values.batch_sizes), len(values.rates))
        self._selection_seeds = range(_FIRST_SEED, _FIRST_SEED + values.selection_seeds)
        self._fresh_seeds = range(self._selection_seeds.stop, self._selection_seeds.stop + values.fresh_seeds)
        self._plans: dict[Point, Plan] = {}

    def _can_have(self, depth: int) -> bool:
        """Whether the method allows so few layers: one that routes every other block needs two."""
        try:
            model = replace(self.config.model, n_layers=depth)
            check(replace(self.config, method=self.method, model=model, study=None))
        except UserError:
            return False
        return True

    def missing(self, ended: Ended) -> Iterator[Job]:
        """The runs that can be started now."""
        found = self._search(ended)
        yield from (self.job(point, _FIRST_SEED) for point in found.missing)
        if found.missing:
            return
        candidates = self._candidates(found)
        seeds = [*self._selection_seeds, *self._fresh_seeds]
        jobs = [self.job(point, seed) for point in candidates for seed in seeds]
        yield from (job for job in jobs if not ended.has(job))

    def result(self, ended: Ended) -> Tuned:
        """What the search has found; all of its runs have ended."""
        found, losses = self._search(ended), self._losses(ended)
        chosen = self._ranked(found, ended)
        return Tuned(
            searched=len(losses),
            diverged=sum(loss is None for loss in losses.values()),
            at_edge=[
                ladder
                for ladder, place, size in zip(_LADDERS, chosen[0], self._sizes, strict=True)
                if place in (0, size - 1)
            ],
            candidates=[self._candidate(point, ended) for point in chosen],
        )

    def _search(self, ended: Ended) -> Search:
        return search(self._losses(ended), self.start, self._sizes)

    def _losses(self, ended: Ended) -> dict[Point, float | None]:
        """Of the first seed, at every place on the ladders where it has been run."""
        jobs = {point: self.job(point, _FIRST_SEED) for point in itertools.product(*map(range, self._sizes))}
        return {point: ended.loss(job.config) for point, job in jobs.items() if ended.has(job)}

    def _candidates(self, found: Search) -> list[Point]:
        return list(found.predicted)[: self.values.candidates]

    def _ranked(self, found: Search, ended: Ended) -> list[Point]:
        """The candidates without a diverged seed, by their mean loss."""
        means = {}
        for point in self._candidates(found):
            losses = [ended.loss(self.job(point, seed).config) for seed in self._selection_seeds]
            if None not in losses:
                means[point] = fmean(loss for loss in losses if loss is not None)
        if not means:
            raise UserError(f"every candidate of {self.name} diverged; lower study.tuning.rates.")
        return sorted(means, key=means.__getitem__)

    def _candidate(self, point: Point, ended: Ended) -> Candidate:
        job = self.job(point, _FIRST_SEED)
        model, train = job.config.model, job.config.train
        return Candidate(
            settings=Settings(
                n_layers=model.n_layers,
                d_model=model.d_model,
                n_heads=model.n_heads,
                batch_size=train.batch_size,
                lr_at_128=train.lr_at_128,
            ),
            params_total=job.plan.count.params_total,
            params_active=job.plan.count.params_active,
            tokens=job.plan.tokens,
            selection=self._of_seeds(point, self._selection_seeds, ended),
            fresh=self._of_seeds(point, self._fresh_seeds, ended),
        )

    def _of_seeds(self, point: Point, seeds: range, ended: Ended) -> list[float]:
        losses = [ended.loss(self.job(point, seed).config) for seed in seeds]
        return [loss for loss in losses if loss is not None]

    def job(self, point: Point, seed: int) -> Job:
        """The run at a place on the ladders, under the study's name."""
        values, config = self.values, self.config
        assert config.study is not None
        depth, width, batch_size, rate = point
        d_model, n_heads = values.widths[width]
        train = replace(config.train, batch_size=values.batch_sizes[batch_size], lr_at_128=values.rates[rate])
        own = replace(
            config,
            method=self.method,
            model=replace(config.model, n_layers=self._depths[depth], d_model=d_model, n_heads=n_heads),
            train=train,
            evaluate=replace(config.evaluate, tasks=[], timing_steps=0, decode_batch_sizes=[]),
            seed=seed,
            name=config.study.name,
            study=None,
        )
        if point[:3] not in self._plans:  # counting a model is slow, and the rate does not change it
            check(own)
            self._plans[point[:3]] = plan(own, self.vocab_size)
        return Job(own, self._plans[point[:3]])
