"""How branches join the residual stream.

A branch gives what is to be added to the stream: attention, feed-forward, experts, a block of two of
them. A layer gives the new stream: `Residual` here, `DepthRouted` in methods/depth.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bench.model.context import Stream


def add_parts(*counts: dict[str, float]) -> dict[str, float]:
    """Sum FLOP counts part by part."""
    total: dict[str, float] = {}
    for count in counts:
        for part, flops in count.items():
            total[part] = total.get(part, 0.0) + flops
    return total


@dataclass(frozen=True)
class StepCost:
    """What a decoding step of some rows has to do, in expectation."""

    weights: float = 0.0  # elements of the matrices that are read
    cached: float = 0.0  # elements of keys and values that are read
    flops: float = 0.0

    def __add__(self, other: StepCost) -> StepCost:
        return StepCost(self.weights + other.weights, self.cached + other.cached, self.flops + other.flops)


@dataclass(frozen=True)
class Visit:
    """How a branch is met in a decoding step: each of `rows` rows comes with probability `share`."""

    rows: int
    share: float
    context: float  # keys that a row which comes finds in the branch's cache

    @property
    def coming(self) -> float:
        """Rows that come, in expectation."""
        return self.rows * self.share

    def touched(self, share: float = 1.0) -> float:
        """Probability that a part which a coming row meets with probability `share` is met by any row."""
        return 1.0 - (1.0 - self.share * share) ** self.rows


class Branch(nn.Module):
    """`branch(x, stream)`: x (B, T, D) -> what is to be added to it (B, T, D)."""

    def flops(self, tokens: float) -> dict[str, float]:
        """Planned forward FLOPs of a row of `tokens` tokens, by part of the model."""
        raise NotImplementedError

    def step_cost(self, visit: Visit) -> StepCost:
        """What a decoding step costs; here all weights are read as soon as any row comes."""
        flops = visit.coming * sum(self.flops(1.0).values())
        return StepCost(visit.touched() * sum(p.numel() for p in self.parameters()), flops=flops)

    def active_params(self) -> float:
        """Parameters that a token meets, in expectation."""
        return sum(parameter.numel() for parameter in self.parameters())

    def moved_bytes(self, tokens: float) -> float:
        """Bytes that routing `tokens` tokens reads and writes, in float32: sort, gather, scatter."""
        return 0.0


class Layer(nn.Module):
    """`layer(x, stream)`: x (B, T, D) -> the new x (B, T, D)."""

    def flops(self, tokens: int) -> dict[str, float]:
        """Planned forward FLOPs of a row of `tokens` tokens, by part of the model."""
        raise NotImplementedError

    def step_cost(self, rows: int, context: int) -> StepCost:
        """What a decoding step of `rows` rows costs, each with `context` tokens behind it."""
        raise NotImplementedError

    def active_params(self) -> float:
        """Parameters that a token meets, in expectation."""
        raise NotImplementedError

    def moved_bytes(self, tokens: int) -> float:
        """Bytes that routing a row of `tokens` tokens reads and writes, in float32: sort, top-k, gather, scatter."""
        raise NotImplementedError


class Block(Branch):
    """Two branches in a row, the second reading what the first has added.

    As a branch itself it leaves the outer residual to its caller: that is the f(x) which a depth
    router multiplies by r (arXiv 2404.02258, eq. 1).
    """

    def __init__(self, attention: Branch, feed_forward: Branch):
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        attended = self.attention(x, stream)
        return attended + self.feed_forward(x + attended, stream)

    def flops(self, tokens: float) -> dict[str, float]:
        return add_parts(self.attention.flops(tokens), self.feed_forward.flops(tokens))

    def step_cost(self, visit: Visit) -> StepCost:
        return self.attention.step_cost(visit) + self.feed_forward.step_cost(visit)

    def active_params(self) -> float:
        return self.attention.active_params() + self.feed_forward.active_params()

    def moved_bytes(self, tokens: float) -> float:
        return self.attention.moved_bytes(tokens) + self.feed_forward.moved_bytes(tokens)


class Residual(Layer):
    """A layer in which every token takes part: x + branch(x)."""

    def __init__(self, branch: Branch):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return x + self.branch(x, stream)

    def flops(self, tokens: int) -> dict[str, float]:
        return self.branch.flops(tokens)

    def step_cost(self, rows: int, context: int) -> StepCost:
        return self.branch.step_cost(Visit(rows, 1.0, context))

    def active_params(self) -> float:
        return self.branch.active_params()

    def moved_bytes(self, tokens: int) -> float:
        return self.branch.moved_bytes(tokens)
