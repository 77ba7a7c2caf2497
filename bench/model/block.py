"""The contract of branches and layers, and the plain ones: feed-forward, block, residual.

A branch returns what is added to the residual stream: attention, a feed-forward, experts, or a block of two of them.
A layer returns the new residual stream: `Residual` here, or one that skips tokens (bench/methods/routed.py). Both
state what they cost: forward and backward FLOPs, decoding, active parameters, bytes moved by routing.
docs/add_a_method.md shows how a new method uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bench.config.schema import ModelConfig
from bench.model.context import Routing, TokenContext
from bench.model.kernels import RMSNorm, swiglu


def both_gradients(forward: dict[str, float]) -> dict[str, float]:
    """Backward FLOPs of products whose two factors need a gradient each: two products, as large as the forward one."""
    return {part: 2.0 * flops for part, flops in forward.items()}


def add_parts(*counts: dict[str, float]) -> dict[str, float]:
    """Sum FLOP counts part by part."""
    total: dict[str, float] = {}
    for count in counts:
        for part, flops in count.items():
            total[part] = total.get(part, 0.0) + flops
    return total


@dataclass(frozen=True)
class StepCost:
    """Expected cost of one decoding step of some rows."""

    weights: float = 0.0  # matrix elements that are read
    cached: float = 0.0  # elements of keys and values that are read
    flops: float = 0.0

    def __add__(self, other: StepCost) -> StepCost:
        return StepCost(self.weights + other.weights, self.cached + other.cached, self.flops + other.flops)


@dataclass(frozen=True)
class Visit:
    """The rows that reach a branch in a decoding step: each of `rows` rows does so with probability `share`."""

    rows: int
    share: float
    context: float  # keys of one such row in the branch's cache

    @property
    def coming(self) -> float:
        """Expected number of rows that reach the branch."""
        return self.rows * self.share

    def touched(self, share: float = 1.0) -> float:
        """Probability that any row uses a part which each arriving row uses with probability `share`."""
        return 1.0 - (1.0 - self.share * share) ** self.rows


class _Module(nn.Module):
    """What branches and layers declare, apart from their costs."""

    layer: int | None = None  # the number of its block, where it routes
    looks_ahead = False  # True: routes by later tokens in training, and without them where `context.causal`
    product_free: tuple[str, ...] = ()  # operators used that fvcore does not know and that multiply no matrices

    def flops(self, tokens: float) -> dict[str, float]:
        """Planned forward FLOPs of a row of `tokens` tokens, by part of the model."""
        raise NotImplementedError

    def backward_flops(self, tokens: float) -> dict[str, float]:
        """The same of the backward pass. Override it where a factor of a product needs no gradient."""
        return both_gradients(self.flops(tokens))

    def active_params(self) -> float:
        """Expected number of parameters that one token uses."""
        return sum(parameter.numel() for parameter in self.parameters())

    def after_step(self, routings: list[Routing]) -> None:
        """Called after each optimiser step, where `layer` is set, with the step's routings of that block."""


class Branch(_Module):
    """`branch(x, context)`: x (B, T, D) -> what is added to x (B, T, D)."""

    def step_cost(self, visit: Visit) -> StepCost:
        """Expected cost of a decoding step. By default all weights are read if any row arrives."""
        flops = visit.coming * sum(self.flops(1.0).values())
        return StepCost(visit.touched() * sum(p.numel() for p in self.parameters()), flops=flops)

    def moved_bytes(self, tokens: float) -> float:
        """Bytes that routing `tokens` tokens reads and writes, in float32: sort, gather, scatter."""
        return 0.0


class Layer(_Module):
    """`layer(x, context)`: x (B, T, D) -> the new x (B, T, D)."""

    def step_cost(self, rows: int, context: int) -> StepCost:
        """Expected cost of a decoding step of `rows` rows, each after `context` tokens."""
        raise NotImplementedError

    def moved_bytes(self, tokens: int) -> float:
        """Bytes that routing a row of `tokens` tokens reads and writes, in float32: sort, top-k, gather, scatter."""
        return 0.0


def feed_forward_width(config: ModelConfig) -> int:
    """d_ff; by default 8/3 of d_model, rounded up to a multiple of 32."""
    if config.d_ff is not None:
        return config.d_ff
    return -(-8 * config.d_model // (3 * 32)) * 32


class FeedForward(Branch):
    """Pre-norm SwiGLU (Shazeer 2020, arXiv 2002.05202): fused gate and up projections, then the down projection."""

    def __init__(self, config: ModelConfig, hidden: int | None = None):
        super().__init__()
        hidden = hidden or feed_forward_width(config)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.gate_up = nn.Linear(config.d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, config.d_model, bias=False)

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        return self.down(swiglu(self.gate_up(self.norm(x))))

    def flops(self, tokens: float) -> dict[str, float]:
        """2 x weights per token."""
        return {"feed-forward": 2 * (self.gate_up.weight.numel() + self.down.weight.numel()) * tokens}


class Block(Branch):
    """Two branches in a row; the second reads what the first added.

    A block leaves the outer residual to its caller: it is the f(x) that a depth router multiplies by r
    (arXiv 2404.02258, eq. 1).
    """

    def __init__(self, attention: Branch, feed_forward: Branch):
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        attended = self.attention(x, context)
        return attended + self.feed_forward(x + attended, context)

    def flops(self, tokens: float) -> dict[str, float]:
        return add_parts(self.attention.flops(tokens), self.feed_forward.flops(tokens))

    def backward_flops(self, tokens: float) -> dict[str, float]:
        return add_parts(self.attention.backward_flops(tokens), self.feed_forward.backward_flops(tokens))

    def step_cost(self, visit: Visit) -> StepCost:
        return self.attention.step_cost(visit) + self.feed_forward.step_cost(visit)

    def active_params(self) -> float:
        return self.attention.active_params() + self.feed_forward.active_params()

    def moved_bytes(self, tokens: float) -> float:
        return self.attention.moved_bytes(tokens) + self.feed_forward.moved_bytes(tokens)


class Residual(Layer):
    """A layer that every token passes: x + branch(x)."""

    def __init__(self, branch: Branch):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, context: TokenContext) -> Tensor:
        return x + self.branch(x, context)

    def flops(self, tokens: float) -> dict[str, float]:
        return self.branch.flops(tokens)

    def backward_flops(self, tokens: float) -> dict[str, float]:
        return self.branch.backward_flops(tokens)

    def step_cost(self, rows: int, context: int) -> StepCost:
        return self.branch.step_cost(Visit(rows, 1.0, context))

    def active_params(self) -> float:
        return self.branch.active_params()

    def moved_bytes(self, tokens: int) -> float:
        return self.branch.moved_bytes(tokens)
