"""A trained model as lm-eval sees one: log-likelihoods and text, batched, causal, each prefix read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from bench.data import Tokenizer
from bench.model import Transformer
from bench.model.sampling import Continuations, choose, read, read_together

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

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation, and whether greedy decoding would give it."""
        work: list[tuple[int, Piece]] = []
        for number, (_names, context, continuation) in enumerate(requests):
            prefix = context or [self.prefix_token_id]
            work += [(number, piece) for piece in pieces(prefix, continuation, self.model.context)]
        # Longest first, so that the rows of a batch are about as long; those that share a prefix meet in a batch.
        work.sort(key=lambda item: (-len(item[1][0]) + item[1][1], item[1][0]))
        totals = [0.0] * len(requests)
        greedy = [True] * len(requests)
        for batch in self._batches(work):
            for (number, _piece), (value, same) in zip(batch, self._score([p for _, p in batch]), strict=True):
                totals[number] += value
                greedy[number] &= same
        return list(zip(totals, greedy, strict=True))

    def _batches(self, work: list[tuple[int, Piece]]) -> Iterator[list[tuple[int, Piece]]]:
        """Short rows share a batch with more others: as many as hold the tokens of `batch_size` whole contexts."""
        batch: list[tuple[int, Piece]] = []
        longest = 0
        for item in work:
            longest = max(longest, len(item[1][0]))
            if batch and longest * (len(batch) + 1) > self.rows * self.model.context:
                yield batch
                batch, longest = [], len(item[1][0])
            batch.append(item)
        if batch:
            yield batch

    def _score(self, batch: list[Piece]) -> list[tuple[float, bool]]:
        """Every distinct prefix is read once, and what all prefixes begin with once for all of them."""
        prefixes = [tuple(tokens[: -1 - scored]) for tokens, scored in batch]
        places = {prefix: place for place, prefix in enumerate(dict.fromkeys(prefixes))}
        cache = read_together(self.model, list(places)).select([places[prefix] for prefix in prefixes])
        inputs = [tokens[-1 - scored : -1] for tokens, scored in batch]
        logits = read(self.model, inputs, cache, range(sum(map(len, inputs))))
        results = []
        for own, (tokens, scored) in zip(logits.split([len(row) for row in inputs]), batch, strict=True):
            targets = torch.tensor(tokens[-scored:], device=own.device)
            chosen = own.log_softmax(dim=-1).gather(1, targets.unsqueeze(1))
            results.append((chosen.double().sum().item(), bool((own.argmax(dim=-1) == targets).all())))
        return results

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
        rows = [self.tok_encode(request.args[0]) or [self.prefix_token_id] for request in requests]
        order = sorted(range(len(requests)), key=lambda number: (-len(rows[number]), rows[number]))
        texts = [""] * len(requests)
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            made = self._continue([rows[n] for n in batch], [requests[n].args[1] for n in batch])
            for number, text in zip(batch, made, strict=True):
                texts[number] = text
        return texts

    def _continue(self, rows: list[list[int]], settings: list[dict[str, Any]]) -> list[str]:
        """Each row beside its own settings; where a context and its new tokens do not fit, its beginning goes."""
        room = [max(1, self.model.context - _limit(own)) for own in settings]
        texts = Continuations(self.model, [row[-most:] for row, most in zip(rows, room, strict=True)])
        live = list(range(len(rows)))
        made: list[list[int]] = [[] for _ in rows]
        ended: dict[int, str] = {}
        while live:
            for row, logits in zip(live, texts.logits, strict=True):
                made[row].append(_pick(logits, settings[row]))
                text = self._ended(made[row], settings[row])
                if text is not None:
                    ended[row] = text
            kept = [place for place, row in enumerate(live) if row not in ended]
            texts.keep(kept)
            live = [live[place] for place in kept]
            if live:
                texts.go_on([made[row][-1] for row in live])
        return [ended[row] for row in range(len(rows))]

    def _ended(self, made: list[int], settings: dict[str, Any]) -> str | None:
        """The finished text, or None where it goes on; a broken last character is left out."""
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else until
        stopped = made[-1] == self.text.eot
        text = self.text.decode(made[:-1] if stopped else made)
        hits = [text.index(stop) for stop in stops if stop and stop in text]
        if hits:
            return text[: min(hits)]
        if stopped or len(made) >= _limit(settings):
            return text.rstrip("\ufffd")
        return None


def _limit(settings: dict[str, Any]) -> int:
    return max(1, int(settings.get("max_gen_toks", 256)))


def _pick(logits: Tensor, settings: dict[str, Any]) -> int:
    sampled = settings.get("do_sample") is not False
    return choose(logits, float(settings.get("temperature") or 0.0) * sampled, float(settings.get("top_p") or 1.0))
