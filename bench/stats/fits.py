"""All fits to a set of points, as one structure: isoFLOP optima, laws, dense-equivalent compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

from bench.stats.interval import Interval
from bench.stats.outliers import Outlier
from bench.stats.parabolas import MethodFit, fit_method
from bench.stats.parametric import NAMED, Parametric, fit_parametric
from bench.stats.points import Points

SCHEMA_VERSION = 1
_REFERENCE = "dense"
_BEND = 0.15  # typical exponent of the best loss above its floor, by which a curve through two optima would bend
_NAMED = 6  # runs of a budget that a note names
_STEEPER = 0.01  # p below which the losses are said not to be parabolas
_REJECTED = {
    "concave": "its parabola opens downwards",
    "edge": "its minimum lies outside the sizes that were run; add sizes there",
    "poor fit": "its minimum is below the loss of every size by more than noise, so the losses are not a parabola",
    "too few sizes": "a parabola needs three sizes",
}


@dataclass(frozen=True)
class Equivalent:
    """How many times the FLOPs dense needs for the loss that a method reaches at its optimum.

    run: the FLOPs of dense's own first and last optimum, as times these; values beyond them are extrapolations.
    """

    flops: float
    times: Interval
    run: tuple[float, float]

    @property
    def extrapolated(self) -> bool:
        return self._beyond(self.times.value)

    @property
    def ends_extrapolated(self) -> tuple[bool, bool]:
        return self._beyond(self.times.low), self._beyond(self.times.high)

    @property
    def measured(self) -> Interval:
        """`times`, open at the ends that are extrapolations."""
        low, high = self.ends_extrapolated
        return Interval(self.times.value, -math.inf if low else self.times.low, math.inf if high else self.times.high)

    @property
    def warning(self) -> str:
        """Which parts are extrapolations, in words; empty if none is."""
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
class Prediction:
    """Optimal params and tokens at a budget by approach 2 or 3, and the loss there by approach 3; 95 % intervals."""

    method: str
    flops: float
    approach: int
    params: Interval
    tokens: Interval
    loss: Interval | None = None


@dataclass(frozen=True)
class Fits:
    """The fits of every method, by its name in the points.

    points: the rows that were used. optima: a parabola per budget and their power laws (approach 2). parametric: L(N,
    D), None if it could not be fitted (approach 3). equivalents: dense-equivalent compute, empty if no method is named
    dense. notes: what was excluded and what could not be fitted, in words. bootstraps: resamples behind the intervals.
    predictions: what is optimal at the budgets that were requested.
    """

    points: Points
    optima: dict[str, MethodFit]
    parametric: dict[str, Parametric | None]
    equivalents: dict[str, list[Equivalent]]
    notes: list[str]
    bootstraps: int = 0
    predictions: list[Prediction] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """A row per method and budget.

        Columns: method, flops, status, points, near_edge; params, tokens, loss (nats/token) at the optimum and
        dense_needs (times the FLOPs), each with `_low` and `_high`, the 95 % interval: NaN if that end is open.

        | status | the parabola of that budget |
        | --- | --- |
        | `ok` | has its minimum between the smallest and the largest size |
        | `concave` | opens downwards |
        | `edge` | has its minimum outside the sizes that were run |
        | `poor fit` | has its minimum below the loss of every size by more than noise |
        | `too few sizes` | needs three sizes |

        Unless the status is `ok`, the optimum is NaN.
        """
        rows = []
        for name, own in self.optima.items():
            for optimum in own.optima:
                row: dict[str, Any] = {"method": name, "flops": optimum.flops, "status": optimum.status,
                                       "points": optimum.points, "near_edge": optimum.near_edge}  # fmt: skip
                counts = optimum.status == "ok"
                equivalent = self.equivalent(name, optimum.flops)
                for key, value in (
                    *((key, getattr(optimum, key) if counts else None) for key in ("params", "tokens", "loss")),
                    ("dense_needs", equivalent.times if equivalent else None),
                ):
                    numbers = (
                        (value.value, *(_closed(end) for end in (value.low, value.high))) if value else [np.nan] * 3
                    )
                    row |= dict(zip((key, f"{key}_low", f"{key}_high"), numbers, strict=True))
                rows.append(row)
        return pd.DataFrame(rows)

    def equivalent(self, name: str, flops: float) -> Equivalent | None:
        """Dense-equivalent compute of a method at the budget of about `flops`; None if there is none."""
        return next((each for each in self.equivalents.get(name, []) if np.isclose(flops, each.flops)), None)

    def plain(self) -> dict[str, Any]:
        """As JSON: every number as {value, low, high}, None if it could not be estimated or an end is open."""
        return {
            "schema_version": SCHEMA_VERSION,
            "notes": self.notes,
            "methods": {name: self._method(name) for name in self.optima},
            "predictions": [
                {
                    "method": each.method, "flops": each.flops, "approach": each.approach,
                    **{key: _plain(getattr(each, key)) for key in ("params", "tokens", "loss")},
                }
                for each in self.predictions
            ],
        }  # fmt: skip

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
            "params_exponent_unweighted": _plain(fit.unweighted.slope if fit.unweighted else None),
            "parametric": {key: _plain(getattr(parametric, key)) for key in NAMED} if parametric else None,
            "dense_equivalent": [
                {
                    "flops": each.flops, "times": _plain(each.times), "extrapolated": each.extrapolated,
                    "low_extrapolated": each.ends_extrapolated[0], "high_extrapolated": each.ends_extrapolated[1],
                }
                for each in self.equivalents.get(name, [])
            ],
        }  # fmt: skip


def _closed(end: float | None) -> float:
    """An end of an interval, NaN if it is open."""
    return float("nan") if end is None or math.isinf(end) else end


def _plain(interval: Interval | None) -> dict[str, float | None] | None:
    """As JSON, which knows no infinity: an open end is None."""
    if interval is None:
        return None
    numbers = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: None if value is None or math.isinf(value) else value for key, value in numbers.items()}


def fit(
    points: Points, bootstraps: int = 1000, seed: int = 0, title: Callable[[str], str] = str,
    progress: bool | None = None, within: float | None = None, at: Sequence[float] = (),
) -> Fits:  # fmt: skip
    """Approaches 2 and 3 for every method, and dense-equivalent compute if a method is named dense.

    title: a method's name in the notes. progress: a bar on stderr; None draws it on a terminal only.
    within: parabolas leave out points whose loss is more than this share above the best of their budget.
    at: FLOPs to predict the optimum of.
    """
    rng = np.random.default_rng(seed)
    near, left_out = _near(points.frame, within, title)
    optima = {name: fit_method(near[near["method"] == name], bootstraps, rng) for name in points.methods}
    parametric: dict[str, Parametric | None] = {}
    why = []
    hidden = None if progress is None else not progress
    with tqdm(points.methods, unit="method", disable=hidden) as bar:
        for name in bar:
            bar.set_description(f"parametric law, {title(name)}")
            own = points.of(name)
            n, d, loss = (own[column].to_numpy(dtype=float) for column in ("params", "tokens", "loss"))
            law = fit_parametric(n, d, loss, rng, bootstraps > 0)
            parametric[name] = None if isinstance(law, str) else law
            if isinstance(law, str):
                why.append(f"{title(name)}: no parametric law: {law}.")
    reference = next((name for name in optima if name.lower() == _REFERENCE), None)
    times = {
        name: equivalents(own, optima[reference])
        for name, own in optima.items()
        if reference is not None and name != reference
    }
    notes = [*points.notes, *left_out, *_remarks(optima, title), *why]
    predicted = [each for flops in at for each in _predictions(optima, parametric, flops)]
    return Fits(points, optima, parametric, times, notes, bootstraps, predicted)


def _near(frame: pd.DataFrame, within: float | None, title: Callable[[str], str]) -> tuple[pd.DataFrame, list[str]]:
    """The points within that share of the best loss of their method and budget, and which are not, in words."""
    if within is None:
        return frame, []
    best = frame.groupby(["method", "budget"])["loss"].transform("min")
    far = frame["loss"] > best * (1 + within)
    notes = [
        f"{title(str(name))}: {len(own)} of the runs at {_power(float(flops))} FLOPs are more than "
        f"{100 * within:.3g} % above the best loss, left out of the parabola: {_some([_run(*run) for run in runs])}."
        for (name, flops), own in frame[far].groupby(["method", "budget"], sort=False)
        for runs in [own[["params", "loss"]].to_numpy()]
    ]
    return frame[~far], notes


def _predictions(
    optima: dict[str, MethodFit], parametric: dict[str, Parametric | None], flops: float
) -> list[Prediction]:
    found = []
    for name, own in optima.items():
        if own.params_law and own.tokens_law:
            found.append(Prediction(name, flops, 2, own.params_law.at(flops), own.tokens_law.at(flops)))
        law = parametric[name]
        if law:
            found.append(Prediction(name, flops, 3, **law.at(flops)))
    return found


def _remarks(optima: dict[str, MethodFit], title: Callable[[str], str]) -> list[str]:
    each = [(title(name), optimum) for name, own in optima.items() for optimum in own.optima]
    notes = [
        f"{name}: fit rejected at {_power(optimum.flops)} FLOPs: {_REJECTED[optimum.status]}."
        for name, optimum in each
        if optimum.status != "ok"
    ]
    few = [optimum for _, optimum in each if optimum.status == "too few sizes"]
    if 2 * len(few) > len(each) > 3:
        notes.append("most budgets have fewer than three sizes: group FLOPs that are not exact with --cluster 5%.")
    notes += [
        f"{name}: {len(optimum.outliers)} of the runs at {_power(optimum.flops)} FLOPs are outliers, excluded from the "
        f"parabola: {_listed(optimum.outliers)}."
        for name, optimum in each
        if optimum.outliers
    ]
    notes += [
        f"{title(name)}: the losses are steeper on one side than parabolas (p = {own.misfit.p:.1g}), and the minima "
        "less certain for it: leave out runs far above the best with --within 6%."
        for name, own in optima.items()
        if own.misfit.p < _STEEPER
    ]
    notes += [
        f"{title(name)}: no power law; it needs two budgets with an optimum and has {len(own.log_flops)}."
        for name, own in optima.items()
        if own.params_law is None
    ]
    dense = next((own for name, own in optima.items() if name.lower() == _REFERENCE), None)
    if dense is None and len(optima) > 1:
        notes.append("no dense-equivalent compute: no method is called dense.")
    if dense is not None and len(dense.loss) > 1 and not np.all(np.diff(dense.loss) < 0):
        notes.append("no dense-equivalent compute: dense's own optima do not improve with more FLOPs.")
    return notes


def _listed(outliers: Sequence[Outlier]) -> str:
    return _some(
        [
            f"{_run(run.params, run.loss)}, {abs(run.off):.1%} {'above' if run.off > 0 else 'below'} the fit"
            for run in outliers
        ]
    )


def _run(params: float, loss: float) -> str:
    return f"{params:.3g} params with a loss of {loss:.4g}"


def _some(named: Sequence[str]) -> str:
    return "; ".join([*named[:_NAMED], *["and more"] * (len(named) > _NAMED)])


def _power(flops: float) -> str:
    return f"{flops:.3g}".replace("e+", "e")


def equivalents(method: MethodFit, dense: MethodFit) -> list[Equivalent]:
    """Log FLOPs along the curve through dense's optima, against log loss; none if that does not fall throughout.

    A drawn curve is the fitted one, off by the drawn errors of the two optima of dense next to the place.
    """
    line = np.log(dense.loss)
    if len(line) < 2 or not np.all(np.diff(line) < 0):
        return []
    curve = PchipInterpolator(-line, dense.log_flops)
    errors = _log(dense.loss_draws) - line if dense.loss_draws.size and method.loss_draws.size else None
    found = []
    for place, (log_flops, loss) in enumerate(zip(method.log_flops, method.loss, strict=True)):
        at = float(_log_flops_at(np.log(loss), curve))
        draws = None
        if errors is not None:
            right = int(np.clip(np.searchsorted(dense.log_flops, at), 1, len(line) - 1))
            left = right - 1
            share = (at - dense.log_flops[left]) / (dense.log_flops[right] - dense.log_flops[left])
            there = (1 - share) * errors[:, left] + share * errors[:, right]
            draws = _log_flops_at(_log(method.loss_draws[:, place]) - there, curve)
            if len(line) == 2:  # a straight line: what its bend may add has to be allowed for
                bend = _BEND / 2 * share * (1 - share) * (dense.log_flops[1] - dense.log_flops[0]) ** 2
                draws = draws + bend * np.random.default_rng(place).standard_normal(len(draws))
            with np.errstate(over="ignore"):
                draws = np.exp(draws - log_flops)
        first, last = np.exp(dense.log_flops[[0, -1]] - log_flops)
        times = Interval.from_draws(float(np.exp(at - log_flops)), draws)
        found.append(Equivalent(float(np.exp(log_flops)), times, (float(first), float(last))))
    return found


def _log(losses: np.ndarray) -> np.ndarray:
    """NaN for a drawn loss below 0, which counts as beyond both ends."""
    return np.log(np.where(losses > 0, losses, np.nan))


def _log_flops_at(log_loss: np.ndarray, curve: PchipInterpolator) -> np.ndarray:
    """Where the curve, log FLOPs over minus log loss, reaches `log_loss` (...,).

    A monotone cubic between the points, since the curve bends; a straight line beyond them.
    """
    inside = np.clip(-log_loss, curve.x[0], curve.x[-1])
    return np.asarray(curve(inside) + curve(inside, nu=1) * (-log_loss - inside))
