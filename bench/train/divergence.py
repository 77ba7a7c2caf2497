"""When a run whose loss stayed finite counts as diverged all the same.

The yardstick is ln V, the loss of a uniform guess over a vocabulary of V tokens: a model starts near it and learns its
way below; a wide one starts up to 1 nat above. Losses are means over WINDOW steps, in nats/token, so that one hard
batch decides nothing.
"""

from __future__ import annotations

import math

WINDOW = 20  # steps
_ABOVE_START = 0.5  # nats: a run of a few steps, or at a rate near 0, ends within this of where it started
_SHARE_LOST = 0.5  # of what the run had learned below ln V
_LEARNED = 1.0  # nats below ln V from which losing it counts


def explosion(loss: float, first: float, best: float | None, vocab_size: int) -> str | None:
    """Why training that ended at `loss` counts as diverged, in words; None if it does not.

    It does if the loss is 0.5 nats or more above both ln V and the loss of the first step, or if it has risen from the
    run's own `best` by more than half of the way back to ln V. best: the lowest mean over WINDOW steps; None for a run
    of fewer.
    """
    uniform = math.log(vocab_size)
    if loss >= max(uniform, first) + _ABOVE_START:
        return f"the training loss ended at {loss:.3g}, above the {uniform:.2f} of a uniform guess"
    if best is not None and uniform - best >= _LEARNED and loss - best > _SHARE_LOST * (uniform - best):
        return f"the training loss rose from {best:.3g} to {loss:.3g}, most of the way back to a uniform guess"
    return None
