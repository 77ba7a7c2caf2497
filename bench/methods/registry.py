"""From a method's name to its layers.

A method is a point on two axes (see MethodConfig): a depth router or none, experts or one feed-forward.
`conf/method/<name>.yaml` places it there, and most methods need nothing else. A method that is more than a point
brings a module, found by bench/config/plugins.py.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bench.config.plugins import module_of, typed_options
from bench.config.schema import ExpertsConfig, MethodConfig, ModelConfig
from bench.errors import UserError, out_of_memory
from bench.methods.depth import DepthRouted
from bench.methods.experts import EXPERTS
from bench.model import Attention, Block, Branch, FeedForward, Layer, Residual, Transformer


class MethodModule(Protocol):
    """What a method's module defines."""

    Options: type  # optional: a dataclass, standard or pydantic, whose fields are the keys of `method.options`

    def build_layers(self, model: ModelConfig, method: MethodConfig, options: Any) -> list[Layer]:
        """The layers of the decoder, `model.n_layers` of them; `options` is an `Options`, or None if there is none. It
        must read nothing but its arguments: counts and plans build the model many times.
        """


def layer_count(model: ModelConfig, method: MethodConfig) -> int:
    """Blocks of the method, given the dense baseline's."""
    return max(1, round(model.n_layers * method.layers))


def build_layers(model: ModelConfig, method: MethodConfig) -> list[Layer]:
    """The layers of any point on the two axes."""
    layers: list[Layer] = []
    for layer in range(model.n_layers):
        attention = Attention(model)
        feed_forward = _feed_forward(model, method.experts, layer)
        depth = method.depth
        if depth is None or (layer + 1) % depth.every:
            layers.append(Residual(Block(attention, feed_forward)))
        elif depth.scope == "block":
            layers.append(DepthRouted(Block(attention, feed_forward), depth, model.d_model, model.context, layer))
        elif depth.scope == "attention":
            layers.append(DepthRouted(attention, depth, model.d_model, model.context, layer))
            layers.append(Residual(feed_forward))
        else:
            layers.append(Residual(attention))
            layers.append(DepthRouted(feed_forward, depth, model.d_model, model.context, layer))
    return layers


def _feed_forward(model: ModelConfig, experts: ExpertsConfig | None, layer: int) -> Branch:
    return FeedForward(model) if experts is None else EXPERTS[experts.routing](model, experts, layer)


def build_model(model: ModelConfig, method: MethodConfig, vocab_size: int, seed: int = 0) -> Transformer:
    """The whole network of a method, initialised from `seed` alone.

    `model.n_layers` is the dense baseline's. Raises UserError for a module or options that cannot be used.
    """
    shaped = dataclasses.replace(model, n_layers=layer_count(model, method))
    own = cast("MethodModule | None", module_of(method.name))
    options = typed_options(method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = build_layers(shaped, method) if own is None else _of_module(own, shaped, method, options)
        return Transformer(shaped, layers, vocab_size)


def _of_module(own: MethodModule, model: ModelConfig, method: MethodConfig, options: Any) -> list[Layer]:
    with own_code(method):
        layers = own.build_layers(model, method, options)
    is_list = isinstance(layers, Sequence) and len(layers) > 0
    if not is_list or not all(isinstance(layer, Layer) for layer in layers):
        raise UserError(f"method {method.name}: build_layers must return a list of layers, each a bench.model.Layer.")
    return list(layers)


@contextmanager
def own_code(method: MethodConfig) -> Iterator[None]:
    """Inside, whatever the code of a method's module raises is a UserError that says where. Methods without a module
    have no such code.
    """
    try:
        yield
    except Exception as error:
        module = None if isinstance(error, UserError) or out_of_memory(error) else module_of(method.name)
        if module is None:
            raise
        frames = traceback.extract_tb(error.__traceback__)
        at = next((each for each in reversed(frames) if each.filename == module.__file__), frames[-1])
        what = f"{type(error).__name__}: {str(error).strip() or 'no message'}".partition("\n")[0].rstrip(".")
        place = f"{Path(at.filename).name}, line {at.lineno}, in {at.name}"
        raise UserError(f"method {method.name}: {place}, raised {what}. Nothing was trained.") from error


@torch.no_grad()
def check_shapes(model: Transformer, method: MethodConfig, tokens: Tensor) -> None:
    """Raise UserError if a layer, given `tokens` (B, T), does not return numbers (B, T, D) as it has received."""

    def check(layer: nn.Module, received: tuple[Tensor, ...], returned: Any) -> None:
        shape = tuple(received[0].shape)
        found = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        if found != shape:
            number = list(model.layers).index(layer) + 1
            raise UserError(
                f"method {method.name}: layer {number}, {type(layer).__name__}, must return the residual stream in the "
                f"shape it has received, (rows, tokens, width) = {shape}, and returned {found}. Nothing was trained."
            )

    hooks = [layer.register_forward_hook(check) for layer in model.layers]
    try:
        with model.unchanged(), own_code(method):
            model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
