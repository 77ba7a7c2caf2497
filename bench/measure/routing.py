"""Routing statistics on validation text, and the passage that the report's heat map shows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import Document, Tokenizer
from bench.model import Routing, Transformer
from bench.records.record import CausalRouterStatistics, Passage, Quality, RoutingDetail, RoutingStatistics

_BINS = 60
_PARTS = 8  # of the context, by which the fraction routed by position is shown


class RoutingObserver:
    """Adds up what the routers did in forward passes over validation text."""

    def __init__(self) -> None:
        self.agreed: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])  # layer -> agreements, tokens
        self.processed: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.by_position: Tensor | None = None  # (T, 2): processed, all, over routed blocks
        self.load: dict[int, Tensor] = {}
        self.weights: dict[str, list[Tensor]] = {"selected": [], "skipped": []}

    def watch(self, routings: list[Routing], valid: Tensor, causal: bool) -> None:
        """Add one pass. Agreement with top-k comes from the non-causal one, everything else from the causal one."""
        for routing in routings:
            if routing.selected is not None and causal:
                _add(self.processed[routing.layer], routing.selected, valid)
                self._add_positions(routing.selected & valid, valid)
            if routing.selected is not None and not causal and routing.causal_choice is not None:
                _add(self.agreed[routing.layer], routing.causal_choice == routing.selected, valid)
                if routing.scores is not None:
                    self.weights["selected"].append(routing.scores[routing.selected].cpu())
                    self.weights["skipped"].append(routing.scores[~routing.selected & valid].cpu())
            if routing.expert_counts is not None and causal:
                counts = routing.expert_counts.cpu().double()
                self.load[routing.layer] = self.load.get(routing.layer, torch.zeros_like(counts)) + counts

    def _add_positions(self, processed: Tensor, valid: Tensor) -> None:
        """Batches may be shorter than the longest one, which comes first."""
        sums = torch.stack([processed.sum(dim=0), valid.sum(dim=0)], dim=1).cpu()
        if self.by_position is None:
            self.by_position = torch.zeros_like(sums)
        self.by_position[: len(sums)] += sums

    def not_reported(self, looks_ahead: bool) -> list[str]:
        """What no routing reported, in words for the page; `looks_ahead`: whether the model's training routing does."""
        reported = {"which tokens each block processes": self.processed, "expert load": self.load}
        if looks_ahead:
            reported["router scores"] = self.weights["selected"]
            reported["what its causal router chooses in training"] = self.agreed
        return [words for words, seen in reported.items() if not seen]

    def causal_router(self, quality: Quality) -> CausalRouterStatistics:
        """Statistics of the causal router in use; `quality` is of the same passes."""
        assert self.by_position is not None and quality.val_loss_nats_noncausal is not None
        parts = [part.sum(dim=0).tolist() for part in self.by_position.tensor_split(_PARTS)]
        accuracy, fraction = _mean(list(_shares(self.agreed).values())), _mean(list(_shares(self.processed).values()))
        assert accuracy is not None and fraction is not None
        return CausalRouterStatistics(
            accuracy=accuracy,
            fraction_processed=fraction,
            fraction_by_position=[hits / tokens for hits, tokens in parts if tokens],
            val_loss_nats=quality.val_loss_nats,
            loss_over_topk=quality.val_loss_nats / quality.val_loss_nats_noncausal - 1,
        )

    def statistics(self, n_noop: int) -> RoutingStatistics | None:
        """The record's routing figures; None if nothing was routed."""
        if not self.processed and not self.load:
            return None
        accuracy, fraction = _shares(self.agreed), _shares(self.processed)
        real = {layer: load[: len(load) - n_noop] for layer, load in self.load.items()}
        spread = [float(load.std(correction=0) / load.mean()) for load in real.values() if load.sum()]
        noop = [float(load[len(load) - n_noop :].sum() / load.sum()) for load in self.load.values() if load.sum()]
        return RoutingStatistics(
            predictor_accuracy=_mean(list(accuracy.values())),
            predictor_accuracy_by_layer=accuracy or None,
            fraction_processed=_mean(list(fraction.values())),
            fraction_processed_by_layer=fraction or None,
            expert_load_cv=_mean(spread),
            noop_fraction=_mean(noop) if n_noop else None,
        )

    def detail(self, n_noop: int, passage: Passage | None) -> RoutingDetail:
        """What the report draws: histogram, expert load and the passage."""
        load = {str(layer): (load / load.sum().clamp(min=1)).tolist() for layer, load in sorted(self.load.items())}
        if not self.weights["selected"]:
            return RoutingDetail(passage=passage, expert_load=load or None, n_noop=n_noop)
        values = {name: torch.cat(parts).numpy() for name, parts in self.weights.items()}
        everything = np.concatenate(list(values.values()))
        low, high = np.percentile(everything, [0.1, 99.9])
        edges = np.linspace(float(low), float(high), _BINS + 1)
        counts = {name: np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0].tolist() for name, v in values.items()}
        return RoutingDetail(
            passage=passage,
            weight_edges=edges.tolist(),
            weight_counts=counts,
            expert_load=load or None,
            n_noop=n_noop,
        )


def _add(sums: list[float], hits: Tensor, valid: Tensor) -> None:
    sums[0] += float((hits & valid).sum())
    sums[1] += float(valid.sum())


def _shares(sums: dict[int, list[float]]) -> dict[str, float]:
    return {str(layer): hits / tokens for layer, (hits, tokens) in sorted(sums.items()) if tokens}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


@torch.no_grad()
def observe_passage(model: Transformer, document: Document, tokenizer: Tokenizer) -> Passage | None:
    """What each depth-routed block does with the first T tokens of `document`, causally routed."""
    model.eval()
    ids = document.tokens[: model.context]
    tokens = torch.from_numpy(np.asarray(ids, dtype=np.int64))[None].to(model.embedding.weight.device)
    logits, routings = model(tokens, causal=True)
    routed = [r for r in routings if r.selected is not None]
    if not routed:
        return None
    weights = [[round(w, 4) for w in r.scores[0].tolist()] for r in routed if r.scores is not None]
    nats = F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:], reduction="none")
    return Passage(
        tokens=tokenizer.pieces(ids.tolist()),
        layers=[r.layer for r in routed],
        processed=[r.selected[0].tolist() for r in routed if r.selected is not None],
        weights=weights if len(weights) == len(routed) else None,
        nats=[None, *(round(each, 3) for each in nats.tolist())],
    )
