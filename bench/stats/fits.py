"""Everything that is fitted to a set of points, as one plain structure: what `fit.json` holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

from bench.formats import power, significant
from bench.stats.outliers import Outlier
from bench.stats.parabolas import Estimate, MethodFit, fit_method
from bench.stats.parametric import Parametric, fit_parametric
from bench.stats.points import Points

SCHEMA_VERSION = 1
_REFERENCE = "dense"
_NAMED = 6  # outliers of a budget that a note names


@dataclass(frozen=True)
class Equivalent:
    """How many times the FLOPs dense needs for the loss that a method reaches at its optimum.

    run: the FLOPs of dense's own first and last optimum, as times these; what is beyond them is an extrapolation.
    """

    flops: float
    times: Estimate
    run: tuple[float, float]

    @property
    def extrapolated(self) -> bool:
        return self._beyond(self.times.value)

    @property
    def ends_extrapolated(self) -> tuple[bool, bool]:
        return self._beyond(self.times.low), self._beyond(self.times.high)

    @property
    def measured(self) -> Estimate:
        """`times`, open at the ends that are extrapolations."""
        low, high = self.ends_extrapolated
        return Estimate(self.times.value, -math.inf if low else self.times.low, math.inf if high else self.times.high)

    @property
    def warning(self) -> str:
        """What of it is an extrapolation, in words; empty where nothing is."""
        low, high = self.ends_extrapolated
        if self.extrapolated:
            return "an extrapolation"
        if low and high:
            return "both ends are extrapolations"
        return "the lower end is an extrapolation" if low else "the upper end is an extrapolation" if high else ""

    def _beyond(self, times: float | None) -> bool:
        first, last = self.run
        return times is not None and not first <= times <= last


@dataclass(frozen=True)
class Fits:
    """method -> its fits; `notes` says what was left out of the points, and what could not be fitted."""

    optima: dict[str, MethodFit]
    parametric: dict[str, Parametric | None]
    equivalents: dict[str, list[Equivalent]]
    notes: list[str]
    bootstraps: int = 0  # resamples behind the intervals

    def plain(self) -> dict[str, Any]:
        """As JSON: every number as {value, low, high}, None where it could not be estimated or an end is open."""
        return {
            "schema_version": SCHEMA_VERSION,
            "notes": self.notes,
            "methods": {name: self._method(name) for name in self.optima},
        }

    def _method(self, name: str) -> dict[str, Any]:
        fit, parametric = self.optima[name], self.parametric[name]
        laws = ("tokens_exponent", "tokens_coefficient", "params_exponent", "params_coefficient")
        optima = [
            {
                "flops": optimum.flops, "status": optimum.status, "points": optimum.points,
                "near_edge": optimum.near_edge, "outliers": [asdict(outlier) for outlier in optimum.outliers],
                **{key: _plain(getattr(optimum, key)) for key in ("params", "tokens", "loss")},
            }
            for optimum in fit.optima
        ]  # fmt: skip
        return {
            "optima": optima,
            **{law: _plain(getattr(fit, law)) for law in laws},
            "parametric": {key: _plain(value) for key, value in vars(parametric).items()} if parametric else None,
            "dense_equivalent": [
                {
                    "flops": each.flops, "times": _plain(each.times), "extrapolated": each.extrapolated,
                    "low_extrapolated": each.ends_extrapolated[0], "high_extrapolated": each.ends_extrapolated[1],
                }
                for each in self.equivalents.get(name, [])
            ],
        }  # fmt: skip


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    """As JSON, which knows no infinity: an open end is None."""
    if estimate is None:
        return None
    return {key: None if value is None or math.isinf(value) else value for key, value in asdict(estimate).items()}


def fit(points: Points, bootstraps: int = 1000, seed: int = 0) -> Fits:
    """Approaches 2 and 3 for every method, and dense-equivalent compute where there is a method named dense."""
    rng = np.random.default_rng(seed)
    optima = {name: fit_method(points.of(name), bootstraps, rng) for name in points.methods}
    parametric: dict[str, Parametric | None] = {}
    with tqdm(total=bootstraps * len(points.methods), desc="bootstrap", unit="fit", disable=None) as bar:
        for name in points.methods:
            own = points.of(name)
            n, d, loss = (own[column].to_numpy(dtype=float) for column in ("params", "tokens", "loss"))
            parametric[name] = fit_parametric(n, d, loss, bootstraps, rng, bar.update)
    reference = next((name for name in optima if name.lower() == _REFERENCE), None)
    times = {
        name: equivalents(own, optima[reference])
        for name, own in optima.items()
        if reference is not None and name != reference
    }
    return Fits(optima, parametric, times, [*points.notes, *_remarks(optima, parametric)], bootstraps)


def _remarks(optima: dict[str, MethodFit], parametric: dict[str, Parametric | None]) -> list[str]:
    reasons = {
        "concave": "its parabola opens downwards",
        "edge": "its minimum lies outside the sizes that were run; add sizes there",
        "poor fit": "its minimum is below what any size reached, by more than noise: the losses are no parabola",
        "too few sizes": "a parabola needs three sizes",
    }
    notes = [
        f"{name}: the budget of {power(optimum.flops)} FLOPs gives no optimum: {reasons[optimum.status]}."
        for name, own in optima.items()
        for optimum in own.optima
        if optimum.status != "ok"
    ]
    notes += [
        f"{name}: {len(optimum.outliers)} of the runs at {power(optimum.flops)} FLOPs left out of the parabola, far "
        f"off what the others say: {_listed(optimum.outliers)}."
        for name, own in optima.items()
        for optimum in own.optima
        if optimum.outliers
    ]
    notes += [
        f"{name}: no power law, for it needs two budgets with an optimum and has {len(own.log_flops)}."
        for name, own in optima.items()
        if len(own.log_flops) < 2
    ]
    dense = next((own for name, own in optima.items() if name.lower() == _REFERENCE), None)
    if dense is None and len(optima) > 1:
        notes.append("no method is called dense: no dense-equivalent compute.")
    if dense is not None and len(dense.loss) > 1 and not np.all(np.diff(dense.loss) < 0):
        notes.append("no dense-equivalent compute: dense's own optima do not get better with more FLOPs.")
    return notes + [
        f"{name}: no parametric fit: too few points, or params and tokens do not vary independently."
        for name, own in parametric.items()
        if own is None
    ]


def _listed(outliers: Sequence[Outlier]) -> str:
    told = [
        f"{significant(run.params)} params, whose loss of {significant(run.loss, 4)} is {abs(run.off):.1%} "
        f"{'above' if run.off > 0 else 'below'}"
        for run in outliers[:_NAMED]
    ]
    return "; ".join([*told, *["and more"] * (len(outliers) > _NAMED)])


def equivalents(method: MethodFit, dense: MethodFit) -> list[Equivalent]:
    """Log FLOPs along the curve through dense's optima, against log loss."""
    if len(dense.log_flops) < 2:
        return []
    found = []
    drawn = dense.loss_draws.size and method.loss_draws.size
    for place, (log_flops, loss) in enumerate(zip(method.log_flops, method.loss, strict=True)):
        value = _log_flops_at(np.log(loss), dense.log_flops, np.log(dense.loss)) - log_flops
        if not np.isfinite(value):
            continue
        draws = None
        if drawn:
            with np.errstate(invalid="ignore"):
                pairs = zip(np.log(method.loss_draws[:, place]), np.log(dense.loss_draws), strict=True)
                draws = np.exp([_log_flops_at(own, dense.log_flops, line) - log_flops for own, line in pairs])
        first, last = np.exp(dense.log_flops[[0, -1]] - log_flops)
        times = Estimate.of(float(np.exp(value)), draws)
        found.append(Equivalent(float(np.exp(log_flops)), times, (float(first), float(last))))
    return found


def _log_flops_at(log_loss: float, log_flops: np.ndarray, line: np.ndarray) -> float:
    """Where the curve through (log_flops, line) reaches `log_loss`; NaN where it does not fall throughout.

    A monotone cubic between the points, for the curve bends; beyond the last ones it goes on straight.
    """
    if not np.all(np.diff(line) < 0):
        return float("nan")
    curve = PchipInterpolator(-line, log_flops)
    inside = float(np.clip(-log_loss, -line[0], -line[-1]))
    return float(curve(inside) + curve(inside, nu=1) * (-log_loss - inside))
