"""Which kinds of token experts process and which experts are chosen together, layer by layer."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.records.isoflop import ExpertUse
from bench.stats.jackknife import over_documents


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
