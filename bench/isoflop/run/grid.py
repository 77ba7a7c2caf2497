"""The runs of an isoFLOP study: a ladder of shapes, a window of it for each budget and method, seeds and ablations.

A window is centred where a run of the budget would train on `tokens_per_param` tokens per active parameter.
A method that spends less per token trains on more of them, so its window is higher on the ladder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property

from bench.config.compose import configure_method
from bench.config.schema import GridConfig, MethodConfig, ModelConfig, RunConfig
from bench.config.validate import check
from bench.data.tokenizer import vocabulary_size
from bench.errors import UserError
from bench.flops.match import Plan, plan
from bench.runs.pool import Job

SWEEP_SEEDS = 2  # for each size and rate of a learning-rate sweep


Loss = Callable[[RunConfig], float | None]  # validation loss of an ended run; None: it diverged or failed its audit
Sizes = dict[tuple[str, float], list[Job]]  # (method, budget) -> runs of ascending size


class Grid:
    """The runs of a study, as functions of the losses of the runs they depend on."""

    def __init__(self, config: RunConfig):
        assert config.study is not None and config.study.grid is not None
        self.config = config
        self.values: GridConfig = config.study.grid
        _check(self.values)
        self.budgets = sorted(self.values.budgets)
        self.methods = {name: configure_method(name) for name in self.values.methods}
        self._controls = [(name, configure_method(words)) for name, words in self.values.controls]
        self.ladder = [_shape(config, self.methods.values(), *shape) for shape in self.values.shapes]
        self.vocab_size = vocabulary_size(config.data.tokenizer)
        self._plans: dict[str, Plan] = {}

    def job(self, method: MethodConfig, rung: int, budget: float, seed: int, lr_at_128: float, snapshots=0) -> Job:
        """The run of a method on a rung of the ladder, under the study's name."""
        assert self.config.study is not None
        train = replace(self.config.train, budget_flops=budget, lr_at_128=lr_at_128, snapshots=snapshots)
        evaluate = replace(self.config.evaluate, tasks=[], timing_steps=0, decode_batch_sizes=[])
        config = replace(
            self.config, method=method, model=self.ladder[rung], train=train, evaluate=evaluate, seed=seed,
            name=self.config.study.name, study=None, dry_run=False,
        )  # fmt: skip
        return Job(config, self._plan(config))

    def _plan(self, config: RunConfig) -> Plan:
        """Counting a model is slow, so equal shapes are counted once."""
        key = repr((config.model, config.method, config.train.budget_flops))
        if key not in self._plans:
            self._plans[key] = plan(config, self.vocab_size)
        return self._plans[key]

    def window(self, name: str, budget: float) -> range:
        """The rungs of the ladder that are run first."""
        distance = []
        for rung in range(len(self.ladder)):
            solved = self.job(self.methods[name], rung, budget, 0, 1.0).plan
            per_param = solved.tokens / solved.count.params_active
            distance.append(abs(math.log(per_param / self.values.tokens_per_param)))
        sizes = min(self.values.sizes, len(self.ladder))
        first = distance.index(min(distance)) - sizes // 2
        first = max(0, min(first, len(self.ladder) - sizes))
        return range(first, first + sizes)

    def learning_rates(self) -> dict[str, list[Job]]:
        """Method -> its sweep: the smallest budget, a small and a large size, every rate, SWEEP_SEEDS seeds."""
        base = self.config.train.lr_at_128
        found = {}
        for name, method in self.methods.items():
            window = self.window(name, self.budgets[0])
            rungs = sorted({window[len(window) // 4], window[-1 - len(window) // 4]})
            found[name] = [
                self.job(method, rung, self.budgets[0], seed, float(f"{base * multiple:.6g}"))
                for rung in rungs
                for multiple in self.values.rates
                for seed in range(SWEEP_SEEDS)
            ]
        return found

    def sizes(self, lr_at_128: Mapping[str, float]) -> Sizes:
        """The runs of every window of the methods whose learning rate is given, seed 0."""
        return {
            (name, budget): [
                self.job(self.methods[name], rung, budget, 0, lr) for rung in self.window(name, budget)
            ]
            for name, lr in lr_at_128.items()
            for budget in self.budgets
        }  # fmt: skip

    def extended(self, jobs: list[Job], loss: Loss) -> list[Job]:
        """The sizes of a method and budget, with one more if the best run is at the grid edge."""
        best = best_of(jobs, loss)
        rungs = [self.rung(job) for job in jobs]
        if best is jobs[0] and rungs[0] > 0:
            return [self._at(best, rungs[0] - 1), *jobs]
        if best is jobs[-1] and rungs[-1] + 1 < len(self.ladder):
            return [*jobs, self._at(best, rungs[-1] + 1)]
        return jobs

    def _at(self, job: Job, rung: int) -> Job:
        """The same run on another rung."""
        train = job.config.train
        return self.job(job.config.method, rung, train.budget_flops, job.config.seed, train.lr_at_128)

    def seeds(self, optima: Mapping[tuple[str, float], Job]) -> list[Job]:
        """More seeds of the best size of every method and budget; snapshots at the largest budget."""
        found = []
        for (name, budget), best in optima.items():
            snapshots = self.values.snapshots if budget == self.budgets[-1] else 0
            for seed in range(1, self.values.seeds):
                lr = best.config.train.lr_at_128
                found.append(self.job(self.methods[name], self.rung(best), budget, seed, lr, snapshots))
        return found

    def controls(self, optima: Mapping[tuple[str, float], Job]) -> list[Job]:
        """Ablations: variants of a method at its best shape, all seeds, for each method whose best shape is known."""
        budget = self.control_budget
        found = []
        for name, method in self._controls:
            if (name, budget) not in optima:
                continue
            best = optima[name, budget]
            for seed in range(self.values.seeds):
                found.append(self.job(method, self.rung(best), budget, seed, best.config.train.lr_at_128))
        return found

    @cached_property
    def control_budget(self) -> float:
        """The budget of the ablations: as given, or the smallest."""
        return self.values.control_budget or self.budgets[0]

    def rung(self, job: Job) -> int:
        """The rung of its shape on the ladder."""
        return self.ladder.index(job.config.model)

    def planned_flops(self) -> dict[str, tuple[int, float]]:
        """Stage -> (runs, FLOPs), before the first run; a grid that has to be extended adds to it."""
        cells = [(name, budget) for name in self.methods for budget in self.budgets]
        more = self.values.seeds - 1
        controls = self.values.seeds * len(self.values.controls)
        rates = len(self.methods) * 2 * len(self.values.rates) * SWEEP_SEEDS
        sizes = min(self.values.sizes, len(self.ladder))
        total = sum(budget for _, budget in cells)
        return {
            "learning rates": (rates, rates * self.budgets[0]),
            "sizes": (sizes * len(cells), sizes * total),
            "seeds at each optimum": (more * len(cells), more * total),
            "ablations": (controls, controls * self.control_budget),
        }


def best_of(jobs: Iterable[Job], loss: Loss) -> Job:
    """The run of the lowest loss. Raises UserError if all of them diverged."""
    jobs = list(jobs)
    losses = [(value, number) for number, job in enumerate(jobs) if (value := loss(job.config)) is not None]
    if not losses:
        config = jobs[0].config
        raise UserError(
            f"every run of {config.method.name} at {config.train.budget_flops:.3g} FLOPs diverged; "
            "lower train.lr_at_128 or study.grid.rates."
        )
    return jobs[min(losses)[1]]


def _shape(
    config: RunConfig, methods: Iterable[MethodConfig], n_layers: int, d_model: int, n_heads: int
) -> ModelConfig:
    model = replace(config.model, n_layers=n_layers, d_model=d_model, n_heads=n_heads)
    try:
        for method in methods:
            check(replace(config, model=model, method=method))
    except UserError as error:
        raise UserError(f"study.grid.shapes holds {[n_layers, d_model, n_heads]}: {error}") from error
    return model


def _check(values: GridConfig) -> None:
    for key in ("budgets", "methods", "shapes"):
        if not getattr(values, key):
            raise UserError(f"study.grid.{key} must be given.")
    for key in ("budgets", "methods", "shapes", "rates"):
        given = [str(value) for value in getattr(values, key)]
        if len(given) > len(set(given)):
            raise UserError(f"study.grid.{key} holds {max(given, key=given.count)} twice.")
    if len(values.shapes) < 3 or any(len(shape) != 3 for shape in values.shapes):
        raise UserError("study.grid.shapes needs at least three shapes, each [n_layers, d_model, n_heads].")
    if values.control_budget is not None and values.control_budget not in values.budgets:
        raise UserError(f"study.grid.control_budget={values.control_budget:g} must be one of study.grid.budgets.")
    for control in values.controls:
        if len(control) != 2 or control[0] not in values.methods or not control[1].split():
            raise UserError(
                f"study.grid.controls: {control} is not [METHOD, OTHER], where METHOD is one of study.grid.methods and "
                "OTHER a method with its values, for example [mod, mod method.depth.capacity=0.5]."
            )
    planned = vars(values.planned_for).values()
    if any(planned) and not all(planned):
        raise UserError(
            "study.grid.planned_for needs a name, matmul_flops and memory_bytes above 0 and a utilisation of at most 1."
        )
    if values.methods[0] != "dense":
        raise UserError("study.grid.methods must begin with dense, the baseline of the others.")
