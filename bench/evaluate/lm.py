"""A trained model as lm-eval sees one: log-likelihoods and text, batched, causal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from bench.data import Tokenizer


class CausalModel(Protocol):
    """What is asked of a model."""

    context: int

    def causal_logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (B, T) int64 right-padded, lengths (B,) -> logits (B, T, V) float32, each row by itself."""
        ...


Piece = tuple[list[int], int]  # tokens, and how many at the end are scored


def pieces(context: Sequence[int], continuation: Sequence[int], window: int) -> list[Piece]:
    """What to run to score `continuation` after `context`, each piece at most `window` + 1 tokens.

    Too long a context loses its beginning. A continuation longer than the window is scored window by
    window, each starting from the last token of the one before, as for rolling likelihoods.
    """
    whole = [*context, *continuation]
    if len(continuation) <= window:
        return [(whole[-(window + 1) :], len(continuation))]
    first = len(context)
    starts = range(first, len(whole), window)
    return [(whole[start - 1 : start + window], len(whole[start : start + window])) for start in starts]


class BenchLM(TemplateLM):
    """Scores are independent of batch size and of the order of requests: rows never meet in the model."""

    def __init__(self, model: CausalModel, tokenizer: Tokenizer, batch_size: int, device: torch.device | str = "cpu"):
        super().__init__()
        self.model = model
        self.text = tokenizer
        self.rows = batch_size
        self.where = torch.device(device)

    @property
    def eot_token_id(self) -> int:
        return self.text.eot

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.text.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation, and whether greedy decoding would give it."""
        work: list[tuple[int, Piece]] = []
        for number, (_names, context, continuation) in enumerate(requests):
            prefix = context or [self.prefix_token_id]
            work += [(number, piece) for piece in pieces(prefix, continuation, self.model.context)]
        work.sort(key=lambda item: -len(item[1][0]))
        totals = [0.0] * len(requests)
        greedy = [True] * len(requests)
        for start in range(0, len(work), self.rows):
            batch = work[start : start + self.rows]
            for (number, _piece), (value, same) in zip(batch, self._score([p for _, p in batch]), strict=True):
                totals[number] += value
                greedy[number] &= same
        return list(zip(totals, greedy, strict=True))

    def _score(self, batch: list[Piece]) -> list[tuple[float, bool]]:
        inputs, lengths = self._pad([tokens[:-1] for tokens, _ in batch])
        logits = self.model.causal_logits(inputs, lengths)
        results = []
        for row, (tokens, scored) in zip(logits, batch, strict=True):
            own = row[len(tokens) - 1 - scored : len(tokens) - 1]
            targets = torch.tensor(tokens[len(tokens) - scored :], device=self.where)
            chosen = own.log_softmax(dim=-1).gather(1, targets.unsqueeze(1))
            results.append((chosen.double().sum().item(), bool((own.argmax(dim=-1) == targets).all())))
        return results

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.full((len(rows), int(lengths.max())), self.text.eot)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = torch.tensor(row)
        return padded.to(self.where), lengths.to(self.where)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole documents, in disjoint windows that each start from one token of context."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            for pair in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.model.context,
                context_len=1,
            ):
                context, continuation = make_disjoint_window(pair)
                windows.append((("", ""), context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until a stop string, the end-of-text token or `max_gen_toks` new tokens."""
        order = sorted(range(len(requests)), key=lambda number: len(requests[number].args[0]))
        texts = [""] * len(requests)
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            for number, text in zip(batch, self._continue([requests[n].args for n in batch]), strict=True):
                texts[number] = text
        return texts

    def _continue(self, batch: list[tuple[str, dict[str, Any]]]) -> list[str]:
        rows = [self.tok_encode(context) or [self.prefix_token_id] for context, _ in batch]
        made: list[list[int]] = [[] for _ in batch]
        texts: list[str | None] = [None] * len(batch)
        while any(text is None for text in texts):
            live = [number for number, text in enumerate(texts) if text is None]
            inputs, lengths = self._pad([(rows[n] + made[n])[-self.model.context :] for n in live])
            logits = self.model.causal_logits(inputs, lengths)
            last = logits[torch.arange(len(live), device=self.where), lengths - 1]
            for number, scores in zip(live, last, strict=True):
                settings = batch[number][1]
                made[number].append(_pick(scores, settings))
                texts[number] = self._ended(made[number], settings)
        return [text or "" for text in texts]

    def _ended(self, made: list[int], settings: dict[str, Any]) -> str | None:
        """The finished text, or None where it goes on; a broken last character is left out."""
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else until
        stopped = made[-1] == self.text.eot
        text = self.text.decode(made[:-1] if stopped else made)
        hits = [text.index(stop) for stop in stops if stop and stop in text]
        if hits:
            return text[: min(hits)]
        if stopped or len(made) >= int(settings.get("max_gen_toks", 256)):
            return text.rstrip("�")
        return None


def _pick(scores: Tensor, settings: dict[str, Any]) -> int:
    temperature = float(settings.get("temperature") or 0.0)
    if temperature == 0.0 or settings.get("do_sample") is False:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(dim=-1), 1))
