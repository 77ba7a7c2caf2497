"""How numbers are written for people. An absent value is an en dash, never 0."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence

DASH = "–"
MINUS = "−"  # U+2212, as wide as a plus sign
NBSP = "\u00a0"  # keeps a number and its unit on one line
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def now() -> str:
    """The time as records have it: ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def decimal(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` decimals; a NaN or an infinity is spelled out."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else MINUS + "∞")
    return f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """`decimal` that always has a sign."""
    text = decimal(value, digits)
    return text if value is None or text.startswith(MINUS) else "+" + text


def significant(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` significant figures, in powers of ten where it is very large or small."""
    return DASH if value is None else f"{value:.{digits}g}".replace("-", MINUS)


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return decimal(value, 0)


def scaled(value: float | None, unit: str = "") -> str:
    """`value` with an SI prefix and four figures at most: 12 345 678 is 12.35 M."""
    if value is None:
        return DASH
    value = float(f"{value:.4g}")
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}".replace("-", MINUS)
    return f"{value:.4g} {unit}".strip().replace("-", MINUS)


def power(value: float) -> str:
    """A budget in the form that users type: 2.5e12."""
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return DASH if value is None else decimal(100 * value, digits) + NBSP + "%"


def times(value: float | None) -> str:
    """A ratio, such as a speed-up."""
    return DASH if value is None else decimal(value, 2) + "×" * math.isfinite(value)


def span(low: float | None, high: float | None, write: Callable[[float | None], str]) -> str:
    """`LOW to HIGH`, on one line; a dash where there is no interval."""
    return DASH if low is None or high is None else f"{write(low)}{NBSP}to{NBSP}{write(high)}"


def with_interval(value: float, low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """A value and its interval. An end is open where it is infinite, or 0 where `write` is `times`."""
    if low is None or high is None:
        return write(value)
    open_below = math.isinf(low) or (write is times and low == 0.0)
    if math.isinf(high):
        return f"{write(value)} (open at both ends)" if open_below else f"{write(value)} ({write(low)} or more)"
    if open_below:
        return f"{write(value)} ({write(high)} or less)"
    return f"{write(value)} ({write(low)} to {write(high)})"


def binary(value: float | None) -> str:
    """Bytes in a suitable unit: KiB below 1 MiB, MiB below 10 GiB, then GiB with a decimal."""
    if value is None:
        return DASH
    if value >= 10 * 2**30:
        return decimal(value / 2**30, 1) + " GiB"
    return decimal(value / 2**20, 0) + " MiB" if value >= 2**20 else decimal(value / 2**10, 0) + " KiB"


def duration(seconds: float | None) -> str:
    """A time in a suitable unit: ms below 0.1 s, s below 2 min, min below 2 h, h below 2 days, then days."""
    if seconds is None:
        return DASH
    if seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[str]:
    """A line per row of equally many cells, in columns; `numbers`: all but the first are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = ["<", *(">" if numbers else "<") * (len(widths) - 1)]
    line = "  ".join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True))
    return [line.format(*row).rstrip() for row in rows]
