"""lm-eval's rolling log-likelihood against the validation loss: the same text has the same loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.data import Document, Tokenizer
from bench.measure.audit import lasting
from bench.measure.quality import document_losses
from bench.model import Transformer
from bench.records.record import SAME_LOSS

_WINDOWS = 8  # of text, or one document if the shortest has more


def rolling_difference(
    model: Transformer, tokenizer: Tokenizer, documents: Sequence[Document], batch_size: int
) -> float:
    """The largest difference in nats/token, over the shortest of `documents`, of which one at least is not empty."""
    chosen, tokens = list[Document](), 0
    for document in sorted((each for each in documents if len(each.tokens)), key=lambda each: len(each.tokens)):
        tokens += len(document.tokens)
        if chosen and tokens > _WINDOWS * model.context:
            break
        chosen.append(document)
    differences = lasting(model, lambda each: _differences(each, tokenizer, chosen, batch_size), SAME_LOSS)
    return differences.max().item()


def _differences(model: Transformer, tokenizer: Tokenizer, documents: Sequence[Document], batch_size: int) -> Tensor:
    from lm_eval.api.instance import Instance  # slow to import

    from bench.evaluate.lm import BenchLM

    requests = [Instance("loglikelihood_rolling", {}, (each.text,), number) for number, each in enumerate(documents)]
    rolling = BenchLM(model, tokenizer, batch_size).loglikelihood_rolling(requests, disable_tqdm=True)
    losses = document_losses(model, documents, tokenizer.eot, batch_size, noncausal=False)
    return torch.tensor(
        [abs(value + loss.nats) / loss.tokens for value, loss in zip(rolling, losses, strict=True)],
        dtype=torch.float64,
    )
