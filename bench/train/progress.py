"""What training tells whoever watches it, and the bar that shows it in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """Where a training run stands after a step. seconds: in steps alone, over the whole run so far."""

    share: float  # of the budget, 0 to 1
    loss: float
    tokens: int
    flops: float
    seconds: float


Show = Callable[[Progress], None]


@contextmanager
def terminal_bar(label: str, matmul_flops: float) -> Iterator[Show]:
    """A bar with loss, tokens/s, the share of `matmul_flops` (FLOP/s) that is reached, and the time left."""
    layout = "{percentage:3.0f}% |{bar:20}| {desc}"
    with tqdm(total=1.0, desc=label, bar_format=layout, dynamic_ncols=True, mininterval=0.5) as bar:

        def show(now: Progress) -> None:
            bar.n = now.share
            bar.set_description_str(
                f"{label}: loss {now.loss:.3f}  {now.tokens / now.seconds:,.0f} tokens/s  "
                f"{now.flops / now.seconds / matmul_flops:.0%} of matmul rate  "
                f"{now.seconds * (1 - now.share) / now.share:.0f} s left",
                refresh=False,
            )
            bar.update(0)

        yield show
