"""A trained model behind lm-eval's interface: batched, causal; shared prefixes are computed once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor

from bench.data import Document, Tokenizer
from bench.measure.quality import windows
from bench.model import Transformer
from bench.model.prefix_tree import Tree, grow
from bench.model.sampling import Continuations, choose

Piece = tuple[list[int], int]  # tokens, and how many at the end are scored
Requested = dict[tuple[int, ...], list[tuple[int, list[int]]]]  # text -> (request, targets at its end)

_PAIRS = 1 << 25  # of tokens in the trees of a batch: bounds the memory of attention


def pieces(context: Sequence[int], continuation: Sequence[int], window: int) -> list[Piece]:
    """What to run to score `continuation` after `context`, each piece at most `window` + 1 tokens.

    A context that does not fit is truncated on the left. A continuation longer than the window is scored window by
    window, each starting from the last token of the one before, as for rolling likelihoods.
    """
    whole = [*context, *continuation]
    if not continuation:
        return []
    if len(continuation) <= window:
        return [(whole[-(window + 1) :], len(continuation))]
    first = len(context)
    starts = range(first, len(whole), window)
    return [(whole[start - 1 : start + window], len(whole[start : start + window])) for start in starts]


class BenchLM(TemplateLM):
    """Scores depend neither on batch size nor on the order of requests: rows never mix in the model."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, batch_size: int):
        super().__init__()
        self.model = model.eval()
        self.text = tokenizer
        self.rows = batch_size

    @property
    def eot_token_id(self) -> int:
        return self.text.eot

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.text.encode(string)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each (context, continuation); an empty pair, which lm-eval cannot split, has probability 1."""
        found = iter(super().loglikelihood([each for each in requests if any(each.args)], disable_tqdm))
        return [next(found) if any(each.args) else (0.0, True) for each in requests]

    def log_probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-probability in nats of the continuation of each (context, continuation), without an lm-eval task."""
        requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
        return [value for value, _ in self.loglikelihood(requests, disable_tqdm=True)]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation, and whether greedy decoding would give it."""
        requested: Requested = {}
        for number, (_names, context, continuation) in enumerate(requests):
            for tokens, scored in pieces(context or [self.prefix_token_id], continuation, self.model.context):
                requested.setdefault(tuple(tokens[:-1]), []).append((number, tokens[-scored:]))
        totals = torch.zeros(len(requests), dtype=torch.float64)
        missed = torch.zeros(len(requests), dtype=torch.int64)
        for trees in self._batches(sorted(grow(requested), key=lambda tree: -len(tree.tokens))):
            owners, values, missing = self._score(trees, requested)
            totals.index_add_(0, owners, values)
            missed.index_add_(0, owners, missing)
        return list(zip(totals.tolist(), (missed == 0).tolist(), strict=True))

    def _batches(self, trees: list[Tree]) -> Iterator[list[Tree]]:
        """trees, the largest first. A batch has the tokens of `batch_size` whole contexts at most."""
        batch: list[Tree] = []
        for tree in trees:
            width, number = len((batch or [tree])[0].tokens), len(batch) + 1
            if batch and (width * number > self.rows * self.model.context or width * width * number > _PAIRS):
                yield batch
                batch = []
            batch.append(tree)
        if batch:
            yield batch

    def _score(self, trees: list[Tree], requested: Requested) -> tuple[Tensor, Tensor, Tensor]:
        """For each scored token (N,): its request, its log-probability, and 1 where another token is more likely."""
        places: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for tree, end in zip(trees, accumulate(len(tree.tokens) for tree in trees), strict=True):
            start = end - len(tree.tokens)
            for text, path in tree.paths.items():
                for owner, wanted in requested[text]:
                    places += [start + place for place in path[-len(wanted) :]]
                    targets += wanted
                    owners += [owner] * len(wanted)
        device = self.model.device
        distinct, which = torch.tensor(places, device=device).unique(return_inverse=True)
        logits, wanted_tokens = self.model.tree_logits(trees, distinct), torch.tensor(targets, device=device)
        values = logits.log_softmax(dim=-1)[which, wanted_tokens].double()
        missing = logits.argmax(dim=-1)[which] != wanted_tokens
        return torch.tensor(owners), values.cpu(), missing.long().cpu()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole documents, in the windows of the validation loss.

        lm-eval's own last window reaches back, so that its tokens have more context than those of other windows.
        """
        texts = [np.array(self.tok_encode(request.args[0]), dtype=np.int64) for request in requests]
        found = list(windows([Document("", tokens, 0) for tokens in texts], self.model.context, self.text.eot))
        pairs = [(("", ""), window.inputs[:1].tolist(), window.targets.tolist()) for window in found]
        totals = [0.0] * len(requests)
        for window, (value, _) in zip(found, self._loglikelihood_tokens(pairs), strict=True):
            totals[window.document] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until a stop string, the end-of-text token or `max_gen_toks` new tokens.

        Sampled text depends only on the request and on how often the same request came before.
        """
        rows = [self.tok_encode(request.args[0]) or [self.prefix_token_id] for request in requests]
        settings = _settings(requests)
        order = sorted(range(len(requests)), key=lambda number: (-len(rows[number]), rows[number]))
        texts = [""] * len(requests)
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            made = self._continue([rows[n] for n in batch], [settings[n] for n in batch])
            for number, text in zip(batch, made, strict=True):
                texts[number] = text
        return texts

    def _continue(self, rows: list[list[int]], settings: list[_Settings]) -> list[str]:
        """Continue each row as its request says; a context that does not fit with its new tokens is truncated on the
        left.

        At least half a window of context stays: text longer than the window drops its beginning as it is generated.
        """
        window = self.model.context
        room = [window - min(own.tokens, window // 2) for own in settings]
        texts = Continuations(self.model, [row[-most:] for row, most in zip(rows, room, strict=True)])
        live = list(range(len(rows)))
        made: list[list[int]] = [[] for _ in rows]
        ended: dict[int, str] = {}
        while live:
            for row, logits in zip(live, texts.logits, strict=True):
                own = settings[row]
                made[row].append(choose(logits, own.temperature, own.top_p, own.generator))
                text = self._ended(made[row], own)
                if text is not None:
                    ended[row] = text
            kept = [place for place, row in enumerate(live) if row not in ended]
            texts.keep(kept)
            live = [live[place] for place in kept]
            if live:
                texts.go_on([made[row][-1] for row in live])
        return [ended[row] for row in range(len(rows))]

    def _ended(self, made: list[int], settings: _Settings) -> str | None:
        """The finished text without a partial last character, or None if it goes on."""
        stopped = made[-1] == self.text.eot
        text = self.text.decode(made[:-1] if stopped else made)
        hits = [text.index(stop) for stop in settings.until if stop and stop in text]
        if hits:
            return text[: min(hits)]
        if stopped or len(made) >= settings.tokens:
            return text.rstrip("\ufffd")
        return None


@dataclass(frozen=True)
class _Settings:
    """The settings of a generation request, read as lm-eval reads them for other models."""

    tokens: int  # at most
    until: list[str]
    temperature: float
    top_p: float
    generator: torch.Generator


def _settings(requests: Sequence[Instance]) -> list[_Settings]:
    seen: Counter[str] = Counter()
    found = []
    for request in requests:
        content = repr(request.args)
        given = normalize_gen_kwargs({name: value for name, value in request.args[1].items() if value is not None})
        digest = hashlib.sha256(f"{seen[content]} {content}".encode(errors="surrogatepass")).digest()
        seen[content] += 1
        found.append(
            _Settings(
                tokens=max(1, given["max_gen_toks"]),
                until=given["until"],
                temperature=float(given.get("temperature", 1.0 if given["do_sample"] else 0.0)),
                top_p=float(given.get("top_p", 1.0)),
                generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")),
            )
        )
    return found
