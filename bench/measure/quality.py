"""Validation loss, document by document, with the causal router and with training's top-k."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import Document
from bench.measure.routing import RoutingObserver
from bench.model import Transformer
from bench.records.record import Quality
from bench.stats.paired import ratio_stderr


@dataclass
class DocumentLoss:
    """Total nats of one document under each router; nats_noncausal is None for a causal method."""

    tokens: int
    n_bytes: int | None  # as in `Document`
    cluster: str | None = None  # as in `Document`
    nats: float = 0.0
    nats_noncausal: float | None = None


@dataclass
class Window:
    """Up to T consecutive predictions of one document."""

    document: int
    inputs: np.ndarray
    targets: np.ndarray


def choose(documents: Sequence[Document], tokens: int) -> list[Document]:
    """The first whole documents with at least `tokens` tokens in total, or all of them.

    A corpus has its validation documents in the order of their hashes, so this sample depends on nothing else.
    """
    chosen, held = [], 0
    for document in documents:
        if held >= tokens:
            break
        chosen.append(document)
        held += len(document.tokens)
    return chosen


def windows(documents: Sequence[Document], context: int, eot: int) -> Iterator[Window]:
    """Disjoint windows: each token is predicted once, from the tokens before it in its window.

    A document's first token is predicted from the end-of-text token; later windows start from the
    last token of the window before.
    """
    for number, document in enumerate(documents):
        sequence = np.concatenate(([eot], document.tokens)).astype(np.int64)
        for start in range(0, len(sequence) - 1, context):
            piece = sequence[start : start + context + 1]
            yield Window(number, piece[:-1], piece[1:])


@torch.no_grad()
def document_losses(
    model: Transformer,
    documents: Sequence[Document],
    eot: int,
    batch_size: int,
    noncausal: bool,
    observer: RoutingObserver | None = None,
) -> list[DocumentLoss]:
    """Losses of `documents`; `noncausal`: with training's routing too. `observer` watches both passes."""
    model.eval()
    device = model.embedding.weight.device
    losses = [
        DocumentLoss(len(d.tokens), d.n_bytes, d.cluster, nats_noncausal=0.0 if noncausal else None) for d in documents
    ]
    ordered = sorted(windows(documents, model.context, eot), key=lambda w: -len(w.inputs))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        inputs, targets, valid = (t.to(device) for t in _pad(batch))
        for causal in (True, False) if noncausal else (True,):
            logits, routings = model(inputs, valid=valid, causal=causal)
            nats = _nats(logits, targets, valid)
            if observer is not None:
                observer.watch(routings, valid, causal)
            for window, value in zip(batch, nats.tolist(), strict=True):
                loss = losses[window.document]
                if causal:
                    loss.nats += value
                else:
                    loss.nats_noncausal = (loss.nats_noncausal or 0.0) + value
    return losses


def _pad(batch: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(window.inputs) for window in batch)
    inputs, targets = torch.zeros(2, len(batch), length, dtype=torch.int64)
    valid = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, window in enumerate(batch):
        n = len(window.inputs)
        inputs[row, :n] = torch.from_numpy(window.inputs)
        targets[row, :n] = torch.from_numpy(window.targets)
        valid[row, :n] = True
    return inputs, targets, valid


def _nats(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Total nats of each row (B,)."""
    each = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
    return (each * valid).double().sum(dim=1)


def summarise(losses: Sequence[DocumentLoss]) -> Quality:
    """Means over tokens and, where their number is known, bytes; with standard errors over documents."""
    nats = np.array([loss.nats for loss in losses])
    tokens = np.array([loss.tokens for loss in losses], dtype=float)
    topk = [loss.nats_noncausal for loss in losses if loss.nats_noncausal is not None]
    quality = Quality(
        val_loss_nats=nats.sum() / tokens.sum(),
        val_loss_nats_stderr=ratio_stderr(nats, tokens),
        val_loss_nats_noncausal=sum(topk) / tokens.sum() if topk else None,
        tokens_evaluated=int(tokens.sum()),
        documents_evaluated=len(losses),
    )
    sizes = [loss.n_bytes for loss in losses if loss.n_bytes is not None]
    if len(sizes) == len(losses):
        stderr = ratio_stderr(nats, np.array(sizes, dtype=float))
        quality.val_bpb = nats.sum() / sum(sizes) / math.log(2)
        quality.val_bpb_stderr = stderr / math.log(2) if stderr is not None else None
        quality.val_bpb_noncausal = sum(topk) / sum(sizes) / math.log(2) if topk else None
    return quality


def documents_csv(losses: Sequence[DocumentLoss]) -> str:
    """The text of `documents.csv`. The cluster of a document that stands alone is its number."""
    out = io.StringIO()
    both = losses[0].nats_noncausal is not None
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["document", "cluster", "tokens", "bytes", "nats"] + ["nats_noncausal"] * both)
    for number, loss in enumerate(losses):
        row = [number, number if loss.cluster is None else loss.cluster, loss.tokens, loss.n_bytes, f"{loss.nats:.4f}"]
        writer.writerow(row + ([f"{loss.nats_noncausal:.4f}"] if both else []))
    return out.getvalue()
