"""Decoding with a KV cache: method and dense baseline interleaved step by step, compared with the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from bench.measure.speed import ratios, synchronise
from bench.methods.routed import RoutedLayer, expecting
from bench.model import Attention, Transformer
from bench.model.cache import KVCache
from bench.records.record import DecodePoint, Timing

GROUP = 8  # steps summed for one sample of the speed-up: a single step of one row skips everything or nothing
_READINGS = (
    (2048, 5),
    (8192, 3),
)  # (tokens, repeats) of timed prompts; longer ones are read once


@dataclass(frozen=True)
class Roofline:
    """The two limits of the machine, as a roofline has them."""

    flops: float  # FLOP/s of a large matrix product
    bytes: float  # bytes/s that are read

    def seconds(self, model: Transformer, rows: int, context: int) -> float:
        """Lower bound of the seconds of a decoding step of `rows` rows: the longer of reading and computing."""
        cost = model.step_cost(rows, context)
        return max(step_bytes(model, rows, context) / self.bytes, cost.flops / self.flops)


def step_bytes(model: Transformer, rows: int, context: int) -> float:
    """Bytes of weights, keys and values that a decoding step reads, in expectation."""
    cost = model.step_cost(rows, context)
    return (cost.weights + cost.cached) * model.head.weight.element_size()


class _Decoder:
    """A model that decodes the texts in one form, gathered or masked."""

    def __init__(self, model: Transformer, form: str, rows: int):
        self.model = model.eval()
        self.form = form
        self.cache = self.empty(rows)
        self.seconds: list[float] = []

    def empty(self, rows: int) -> KVCache:
        return KVCache(rows, masked=self.form == "masked")

    def read(self, tokens: Tensor) -> float:
        """Read the next tokens (B, T) of every row; returns the seconds."""
        synchronise(tokens.device)
        started = time.perf_counter()
        self.model.extend(tokens.flatten(), [tokens.shape[1]] * len(tokens), self.cache)
        synchronise(tokens.device)
        return time.perf_counter() - started

    def held_when_routed(self) -> int | None:
        """Tokens held by the caches of routed blocks, over rows and blocks; None if none has attention."""
        routed = [layer for layer in self.model.layers if isinstance(layer, RoutedLayer)]
        owners = [module for layer in routed for module in layer.modules() if isinstance(module, Attention)]
        caches = [self.cache.layers[owner] for owner in owners if owner in self.cache.layers]  # from its first token on
        return sum(int(cache.lengths.sum()) for cache in caches) if owners else None


@torch.inference_mode()
def decode_point(
    baseline: Transformer,
    models: Sequence[Transformer],
    text: Tensor,
    context: int,
    steps: int,
    roofline: Roofline,
    before_steps: Callable[[], object] = lambda: None,
) -> list[DecodePoint]:
    """The points of the baseline and of each of `models`, on rows of `text` (B, context + 1 + steps).

    The first `context` tokens are read at once, the others one by one, with the models interleaved at each. The next
    token comes from the text, not from the model, so that all do the same work. `before_steps` is called when the
    contexts are read. Fewer than GROUP steps (at least 1) give no realised speed-up. With several rows a model with
    routed blocks decodes in both forms, and the faster one is reported. The roofline uses the share of tokens that the
    routed blocks processed. On a CPU, call `lay_out_for_decoding` first.
    """
    decoders = [_Decoder(baseline, "gathered", len(text))]
    for model in models:
        routed = any(isinstance(layer, RoutedLayer) for layer in model.layers)
        forms = ["gathered", "masked"] if routed and len(text) > 1 else ["gathered"]
        decoders += [_Decoder(model, form, len(text)) for form in forms]
    first_token = _first_token(decoders, text[:, :context])
    before_steps()
    for step in range(steps + 1):
        if step == 1:
            held = [decoder.held_when_routed() for decoder in decoders]
        for decoder in decoders:
            seconds = decoder.read(text[:, context + step : context + step + 1])
            if step:  # the first one warms up
                decoder.seconds.append(seconds)
    points = [
        _point(decoder, decoders[0], context, seconds, before, roofline)
        for decoder, seconds, before in zip(decoders, first_token, held, strict=True)
    ]
    return [
        max((p for d, p in zip(decoders, points, strict=True) if d.model is own), key=lambda p: p.tokens_per_second)
        for own in (baseline, *models)
    ]


def _first_token(decoders: Sequence[_Decoder], prompts: Tensor) -> list[float]:
    """Seconds of each decoder to read `prompts` (B, T): medians, interleaved, every other time in reverse."""
    seconds: list[list[float]] = [[] for _ in decoders]
    for reading in range(next((times for most, times in _READINGS if prompts.numel() <= most), 1)):
        turns = list(zip(decoders, seconds, strict=True))
        for decoder, own in reversed(turns) if reading % 2 else turns:
            decoder.cache = decoder.empty(len(prompts))
            own.append(decoder.read(prompts))
    return [median(own) for own in seconds]


def _point(
    decoder: _Decoder, baseline: _Decoder, context: int, first_token: float, held_before: int | None, roofline: Roofline
) -> DecodePoint:
    rows, steps, model = decoder.cache.rows, len(decoder.seconds), decoder.model
    middle = context + steps // 2
    routed = sum(isinstance(layer, RoutedLayer) for layer in model.layers)
    point = DecodePoint(
        batch_size=rows,
        context=context,
        steps=steps,
        tokens_per_second=rows * steps / sum(decoder.seconds),
        step_seconds=Timing.of(decoder.seconds),
        step_seconds_p95=float(np.quantile(decoder.seconds, 0.95)),
        first_token_seconds=first_token,
        form=decoder.form,
        bytes_per_token=step_bytes(model, rows, middle) / rows,
        flops_per_token=model.step_cost(rows, middle).flops / rows,
        kv_cache_bytes=decoder.cache.allocated_bytes,
        kv_cache_held_bytes=decoder.cache.held_bytes,
    )
    held = decoder.held_when_routed()
    if held is not None and held_before is not None:
        point.fraction_processed = (held - held_before) / (rows * steps * routed)
    with expecting(model, point.fraction_processed):
        least = roofline.seconds(model, rows, middle)
    point.roofline_share = least * steps / sum(decoder.seconds)
    if decoder is not baseline:
        groups = ratios(_grouped(baseline.seconds), _grouped(decoder.seconds))
        point.speedup_realised = Timing.of(groups) if groups else None
        point.speedup_ideal = roofline.seconds(baseline.model, rows, middle) / least
        point.kv_cache_ratio = decoder.cache.allocated_bytes / baseline.cache.allocated_bytes
    return point


def _grouped(seconds: list[float]) -> list[float]:
    """Sums of GROUP consecutive steps; a remainder is dropped."""
    return [sum(seconds[start : start + GROUP]) for start in range(0, len(seconds) - GROUP + 1, GROUP)]
