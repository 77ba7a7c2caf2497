"""The order of the training text: a function of the seed and the step, nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UserError

if TYPE_CHECKING:
    import torch


class Batches:
    """Batches of windows of `context` tokens.

    An epoch cuts the text into windows that do not overlap, from a random offset, and visits
    each once in random order; the next epoch draws another offset and another order. A window's targets
    are its inputs shifted by one. Every method and its dense baseline see the same batches, and a resumed
    run sees what it would have seen.

    Raises UserError if the text is too short for one window and its last target.
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int) -> None:
        if context + 1 > len(tokens):
            raise UserError(
                f"model.context={context} needs {context + 1} training tokens in a row, but the corpus has "
                f"{len(tokens)}. Set model.context to at most {len(tokens) - 1} or give data.train more text."
            )
        self.tokens = tokens
        self.context = context
        self.batch_size = batch_size
        # One window fewer than could fit, so that there are at least `context` offsets (in a text of two windows).
        self.windows_per_epoch = max(1, (len(tokens) - context) // context)
        offsets = len(tokens) - self.windows_per_epoch * context

        @lru_cache(maxsize=2)  # a batch may reach into the next epoch
        def starts(epoch: int) -> np.ndarray:
            random = np.random.default_rng([seed, epoch])
            return random.integers(offsets) + context * random.permutation(self.windows_per_epoch)

        self._starts = starts

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a training step, counted from 0: int64 (batch_size, context) each."""
        import torch

        first = step * self.batch_size
        places = [divmod(sample, self.windows_per_epoch) for sample in range(first, first + self.batch_size)]
        begins = [self._starts(epoch)[place] for epoch, place in places]
        windows = torch.from_numpy(
            np.stack([self.tokens[begin : begin + self.context + 1] for begin in begins]).astype(np.int64)
        )
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
