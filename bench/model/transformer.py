"""A decoder-only language model over any layers that follow the contract of model/block.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.schema import ModelConfig
from bench.model.attention import rotary_table
from bench.model.block import Block, Layer, Residual, StepCost, add_parts
from bench.model.cache import Arrivals, KVCache
from bench.model.context import Routing, TokenContext
from bench.model.kernels import RMSNorm
from bench.model.prefix_tree import Branching, Tree


class Transformer(nn.Module):
    """Embedding, layers, final norm, head (Llama style: no biases, RMSNorm, RoPE)."""

    rotary: Tensor

    def __init__(self, config: ModelConfig, layers: Sequence[Layer], vocab_size: int):
        super().__init__()
        self.context = config.context
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        rotary = rotary_table(config.context, config.d_model // config.n_heads, config.rope_theta)
        self.register_buffer("rotary", rotary, persistent=False)
        self._initialise(config.n_layers, math.sqrt(2 / (5 * config.d_model)))

    def _initialise(self, n_layers: int, std: float) -> None:
        """Normal(0, sqrt(2 / (5 d_model))) (Nguyen and Salazar 2019, arXiv 1910.05895, section 2.2), about GPT-2's 0.02
        at its width; what writes to the residual stream is scaled by 1 / sqrt(2 n_layers) (GPT-2).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            writes = name.endswith(("out.weight", "down.weight", "down"))
            nn.init.normal_(parameter, std=std / math.sqrt(2 * n_layers) if writes else std)

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, causal: bool = False
    ) -> tuple[Tensor, list[Routing]]:
        """tokens (B, T) int64 -> logits (B, T, V) and what each router decided.

        valid (B, T) bool marks real tokens; padding must be at the end of a row. causal=False routes as in training
        (top-k looks at the whole sequence). causal=True uses only a token and those before it; every reported quality
        figure comes from it.
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        context = self._token_context(positions, valid=valid, causal=causal)
        return self.head(self.norm(self._through_layers(tokens, context))), context.routings

    @torch.no_grad()
    def extend(self, tokens: Tensor, counts: Sequence[int], cache: KVCache, wanted: Tensor | None = None) -> Tensor:
        """Read the next tokens of each row into `cache`; logits (M, V) in float32, causal routing.

        tokens (N,): the new tokens of row 0, then those of row 1, ...; `counts`: how many each row has, 0 allowed.
        wanted (M,): which of the N logits to return; None: the last of each row that has any. Equals
        `forward(causal=True)` on the whole rows. Raises ValueError beyond the model's context; a call that fails leaves
        the cache unchanged.
        """
        if not len(tokens):
            return torch.zeros(0, self.vocab_size, device=tokens.device)
        read = [before + count for before, count in zip(cache.read, counts, strict=True)]
        if max(read) > self.context:
            raise ValueError(f"a row of {max(read)} tokens does not fit into a context of {self.context}")
        positions = [at for before, after in zip(cache.read, read, strict=True) for at in range(before, after)]
        rows = [row for row, count in enumerate(counts) for _ in range(count)]
        step, whole = max(counts) <= 1, min(counts) == 1 == max(counts)
        context = self._token_context(torch.tensor([positions], device=tokens.device), causal=True)
        context.arrivals = Arrivals(cache, torch.tensor(rows, device=tokens.device), step, whole)
        if wanted is None and not step:
            lasts = [end - 1 for end, count in zip(accumulate(counts), counts, strict=True) if count]
            wanted = torch.tensor(lasts, device=tokens.device)
        with cache.kept_on_failure():
            logits = self._logits(tokens, context, wanted)
            cache.read = read
        return logits

    @torch.no_grad()
    def tree_logits(self, trees: Sequence[Tree], wanted: Tensor) -> Tensor:
        """Logits (M, V) in float32, causal routing, at the tokens `wanted` (M,), numbered through all trees.

        Equals `forward(causal=True)` on every text of the trees, each from position 0.
        """
        tokens = torch.tensor([token for tree in trees for token in tree.tokens], device=self.device)
        depths = torch.tensor([[depth for tree in trees for depth in tree.depths]], device=self.device)
        context = self._token_context(depths, causal=True)
        context.arrivals = Branching.of(trees, self.device)
        return self._logits(tokens, context, wanted)

    def _logits(self, tokens: Tensor, context: TokenContext, wanted: Tensor | None) -> Tensor:
        """tokens (N,) that arrive -> logits (M, V) of those `wanted` (M,); None: of all.

        In the last block the other tokens only serve as keys and values, so its feed-forward skips them.
        """
        tokens = tokens.unsqueeze(0)
        if wanted is None:
            return self.head(self.norm(self._through_layers(tokens, context)[0])).float()
        x, last = self._through_layers(tokens, context, self._layers()[:-1]), self._layers()[-1]
        if isinstance(last, Residual) and isinstance(last.branch, Block):
            x = (x + last.branch.attention(x, context))[:, wanted]
            if len(wanted):
                x = x + last.branch.feed_forward(x, context.take(wanted))
        else:
            x = last(x, context)[:, wanted]
        return self.head(self.norm(x[0])).float()

    def _token_context(self, positions: Tensor, valid: Tensor | None = None, causal: bool = False) -> TokenContext:
        return TokenContext(positions, self.rotary[positions], valid, causal)

    def _through_layers(self, tokens: Tensor, context: TokenContext, layers: Sequence[Layer] | None = None) -> Tensor:
        """The hidden states after `layers`; None: after all."""
        x = self.embedding(tokens)
        for layer in self._layers() if layers is None else layers:
            x = layer(x, context)
        return x

    @torch.no_grad()
    def causal_logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens (B, T) right-padded, lengths (B,) -> logits (B, T, V) in float32, causal routing.

        Position t depends on the tokens <= t of its own row only; logits at or past a row's length are undefined.
        """
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
        logits, _ = self(tokens, valid=valid, causal=True)
        return logits.float()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, training passes leave nothing: buffers, gradients, mode and random state are restored at the end."""
        training, gradients = self.training, [parameter.grad for parameter in self.parameters()]
        buffers = [(buffer, buffer.clone()) for buffer in self.buffers()]
        self.zero_grad(set_to_none=True)
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                yield
        finally:
            self.train(training)
            for parameter, gradient in zip(self.parameters(), gradients, strict=True):
                parameter.grad = gradient
            for buffer, before in buffers:
                buffer.copy_(before)

    @property
    def device(self) -> torch.device:
        """The device of the weights, and of the tokens to give."""
        return self.embedding.weight.device

    @property
    def looks_ahead(self) -> bool:
        """Whether training routes by later tokens, so that causal and non-causal figures differ."""
        return any(getattr(part, "looks_ahead", False) for layer in self.layers for part in layer.modules())

    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    def flops(self, tokens: int) -> dict[str, float]:
        """Planned forward FLOPs of one row of `tokens` tokens, by part; a multiply-add is 2."""
        head = {"lm head": 2.0 * self.head.weight.numel() * tokens}
        return add_parts(*(layer.flops(tokens) for layer in self._layers()), head)

    def backward_flops(self, tokens: int) -> dict[str, float]:
        """The same of the backward pass."""
        head = {"lm head": 4.0 * self.head.weight.numel() * tokens}
        return add_parts(*(layer.backward_flops(tokens) for layer in self._layers()), head)

    def step_cost(self, rows: int, context: int) -> StepCost:
        """Expected cost of a decoding step of `rows` rows, each after `context` tokens, the head included."""
        head = StepCost(self.head.weight.numel(), flops=2.0 * rows * self.head.weight.numel())
        return sum((layer.step_cost(rows, context) for layer in self._layers()), head)

    def lay_out_for_decoding(self) -> Transformer:
        """Store each matrix column by column, in place; shapes and values stay, training gets slower.

        A product with few rows is bound by reading the matrix. On a CPU this layout takes about two thirds of the
        time (one row, 512 wide, MKL); with many rows there is no difference.
        """
        for parameter in self.parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.transpose(-1, -2).contiguous().transpose(-1, -2)
        return self

    def active_params(self) -> float:
        """Expected number of parameters that one token uses; a tied embedding counts once."""
        ends = {id(p): p.numel() for p in (self.embedding.weight, self.head.weight, self.norm.weight)}
        return sum(ends.values()) + sum(layer.active_params() for layer in self._layers())

    def moved_bytes(self, tokens: int) -> float:
        """Bytes that sort, top-k, gather and scatter read and write in a forward pass of one row.

        In float32, the type of the residual stream, regardless of the dtype of products.
        """
        return sum(layer.moved_bytes(tokens) for layer in self._layers())


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats; logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
