"""What the routers of a model do with each token: which tokens get depth, and which kinds of token experts process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import stats

from bench.records.isoflop import Covariate, DepthUse, ExpertUse, Profile
from bench.stats.jackknife import over_documents

CLASSES = ("capital", "word start", "inside a word", "digit", "space", "punctuation", "line end", "other")
STATISTIC = "jackknife over documents"
_PARTS = 10  # quantiles of a profile
_CONSTANT = 1e-9  # sum of squared ranks over n^3 (n^3 / 12 without ties), below which it is rounding error
_TIES = ("position", "frequency")  # controlled for, with the kind of token, when difficulty is tested


@dataclass
class HeldOut:
    """Validation windows of full length, and properties of each of their tokens that no router is needed for."""

    inputs: torch.Tensor  # (B, T) int64
    targets: torch.Tensor  # (B, T)
    documents: np.ndarray  # (B * T,) which document each token is from
    kinds: np.ndarray  # (B * T,) index into the classes
    covariates: dict[str, np.ndarray]  # name -> (B * T,)


def depth_use(processed: dict[int, np.ndarray], held_out: HeldOut) -> DepthUse:
    """Rank correlations with every covariate, for each layer and for all together, with profiles of the latter."""
    layers = {str(layer): chosen.flatten().astype(float) for layer, chosen in sorted(processed.items())}
    visits = sum(layers.values())
    assert not isinstance(visits, int)
    every = [
        _correlation(layer, name, given, used, values, held_out)
        for layer, used in {"all": visits, **layers}.items()
        for name, values in held_out.covariates.items()
        for given in ("none", *["position, frequency, kind"] * (name not in _TIES))
    ]
    found = [each for each in every if each is not None]
    _adjust(found)
    share = visits / len(layers)
    profiles = {name: _profile(share, values, held_out.documents) for name, values in held_out.covariates.items()}
    by_kind = {
        kind: _shares(share[held_out.kinds == number], held_out.documents[held_out.kinds == number])
        for number, kind in enumerate(CLASSES)
        if (held_out.kinds == number).sum() >= 100
    }
    return DepthUse(layers=[int(layer) for layer in layers], correlations=found, profiles=profiles, by_kind=by_kind)


def _correlation(
    layer: str, name: str, given: str, used: np.ndarray, values: np.ndarray, held_out: HeldOut
) -> Covariate | None:
    """Spearman's rho of `used` and `values`; ranks are those of all tokens. None if one side is constant.

    Given others, it is a partial correlation: of the residuals of both ranks after a least-squares fit to the ranks of
    position and frequency and to the kinds of token.
    """
    there = np.isfinite(values)
    x, y = stats.rankdata(used[there]), stats.rankdata(values[there])
    if given != "none":
        others = [stats.rankdata(held_out.covariates[each][there]) for each in _TIES]
        kinds = np.eye(len(CLASSES))[held_out.kinds[there]]
        design = np.column_stack([*((o - o.mean()) / o.std() for o in others), kinds])
        x, y = (z - design @ np.linalg.lstsq(design, z, rcond=None)[0] for z in (x, y))
    x, y = x - x.mean(), y - y.mean()
    if min(x @ x, y @ y) < _CONSTANT * len(x) ** 3:
        return None
    documents = held_out.documents[there]
    moments = [np.bincount(documents, each) for each in (np.ones_like(x), x, y, x * x, y * y, x * y)]

    def rho(weights: np.ndarray) -> float:
        count, sx, sy, sxx, syy, sxy = (weights @ each for each in moments)
        spread = np.sqrt((sxx - sx * sx / count) * (syy - sy * sy / count))
        return float((sxy - sx * sy / count) / spread)

    found = over_documents(rho, documents, -1, 1)
    return Covariate(
        layer=layer, covariate=name, given=given, rho=found.value, low=found.low, high=found.high, p=found.p
    )


def _adjust(found: list[Covariate]) -> None:
    """Holm's correction over all tests of a model (Holm 1979), in place."""
    tests = [(each.p, each) for each in found if each.p is not None]
    running = 0.0
    for place, (p, each) in enumerate(sorted(tests, key=lambda test: test[0])):
        running = max(running, min(1.0, p * (len(tests) - place)))
        each.p = running


def _profile(share: np.ndarray, values: np.ndarray, documents: np.ndarray) -> list[Profile]:
    """Mean share of routed layers that process a token, over quantiles of `values`, equally large except for ties."""
    there = np.isfinite(values)
    share, values, documents = share[there], values[there], documents[there]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)))
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    found = []
    for number in range(len(edges) - 1):
        own = part == number
        if own.any():
            found.append(_shares(share[own], documents[own], float(values[own].mean())))
    return found


def _shares(share: np.ndarray, documents: np.ndarray, at: float | None = None) -> Profile:
    total, count = np.bincount(documents, share), np.bincount(documents)
    found = over_documents(lambda weights: float(weights @ total / (weights @ count)), documents, 0, 1)
    return Profile(at=at, share=found.value, low=found.low, high=found.high, tokens=len(share))


def expert_use(
    experts: dict[int, np.ndarray], kinds: np.ndarray, n_kinds: int, documents: np.ndarray
) -> list[ExpertUse]:
    """Layer by layer: the kinds of token each expert processes, and which experts are chosen together.

    experts: layer -> (B, T, k) the experts chosen; kinds, documents (B * T,): of each token.
    """
    n_experts = 1 + max(int(chosen.max()) for chosen in experts.values())
    found = []
    for layer, chosen in sorted(experts.items()):
        flat = chosen.reshape(-1, chosen.shape[-1])
        tables = np.zeros((int(documents.max()) + 1, n_experts, n_kinds))
        np.add.at(tables, (documents[:, None], flat, kinds[:, None]), 1.0)
        together = np.zeros((n_experts, n_experts))
        for first in range(flat.shape[1]):
            for second in range(flat.shape[1]):
                if first != second:
                    np.add.at(together, (flat[:, first], flat[:, second]), 1.0)
        table = tables.sum(axis=0)
        information = over_documents(partial(_information_of, tables), documents, 0, 1, biased=True)
        found.append(
            ExpertUse(
                layer=layer,
                share_by_kind=(table / table.sum(axis=0).clip(1)).T.tolist(),
                information=information.value,
                information_low=information.low,
                information_high=information.high,
                together=(together / together.sum(axis=1, keepdims=True).clip(1)).tolist(),
            )
        )
    return found


def _information_of(tables: np.ndarray, counts: np.ndarray) -> float:
    """Mutual information of expert and kind over the entropy of kinds: 0 independent, 1 the expert determines the kind.

    tables: (documents, experts, kinds) tokens; counts (documents,): weight of each document.
    """
    table = np.tensordot(counts, tables, axes=1)
    joint = table / table.sum()
    expert, kind = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    there = joint > 0
    mutual = (joint[there] * np.log((joint / (expert * kind + 1e-300))[there])).sum()
    own = kind[kind > 0]
    return float(mutual / -(own * np.log(own)).sum())
