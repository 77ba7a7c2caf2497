"""Coverage of the interval over validation documents, with the lengths of real ones.

`lengths.txt`: bytes of the 391 validation documents of a corpus of Debian's documentation. Documents are drawn until
they hold so many bytes (tokens, with a byte tokenizer), and the last is cut. Each has its own difference between two
methods, 0.03 nats/token about 0, and noise of 0.6 nats on every token.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from scipy import special

from bench.stats.paired import FEWEST_DEGREES, ratio_source

LENGTHS = np.array(Path(__file__).with_name("lengths.txt").read_text(encoding="utf-8").split(), dtype=float)
TARGETS = (16_384, 65_536, 200_000)
BETWEEN, TOKEN = 0.03, 0.6  # nats/token


def drawn(rng: np.random.Generator, target: int) -> np.ndarray:
    """Tokens of documents, (n,), n at least 2, that hold `target` tokens together."""
    tokens = rng.choice(LENGTHS, 200)
    ends = np.cumsum(tokens)
    number = max(2, int(np.searchsorted(ends, target)) + 1)
    tokens = tokens[:number]
    tokens[-1] = max(1.0, tokens[-1] - max(0.0, ends[number - 1] - target))
    return tokens


def table(draws: int, rng: np.random.Generator) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for target in TARGETS:
        for name, heavy in (("normal", False), ("t, 3 degrees", True)):
            numbers, degrees, held, plain = [], [], [], []
            for _ in range(draws):
                tokens = drawn(rng, target)
                shifts = rng.standard_t(3, len(tokens)) if heavy else rng.standard_normal(len(tokens))
                totals = tokens * (BETWEEN * shifts + TOKEN / np.sqrt(tokens) * rng.standard_normal(len(tokens)))
                value, source, n = totals.sum() / tokens.sum(), ratio_source(totals, tokens), len(tokens)
                half = special.stdtrit(source.degrees, 0.975) * math.sqrt(source.variance)
                ratio = math.sqrt(n / (n - 1) * np.sum((totals - value * tokens) ** 2)) / tokens.sum()
                numbers.append(n)
                degrees.append(source.degrees)
                held.append(abs(value) <= half)
                plain.append(abs(value) <= special.stdtrit(n - 1, 0.975) * ratio)
            closed = np.array(degrees) >= FEWEST_DEGREES
            rows.append(
                [
                    f"{target:,} tokens, {name}", f"{np.median(numbers):.0f}", f"{np.median(degrees) + 1:.1f}",
                    f"{100 * (1 - closed.mean()):.0f} %", f"{100 * np.mean(np.array(held)[closed]):.1f} %",
                    f"{100 * np.mean(np.array(plain)[closed]):.1f} %",
                ]
            )  # fmt: skip
    caption = f"Intervals over validation documents with real lengths, {draws:,} draws each."
    columns = ["tokens, effects", "documents", "act like", "open", "coverage where closed", "ratio estimator, n − 1"]
    return caption, columns, rows
