"""From a method's name to its layers: the one place where names mean something.

A method is a point on two axes (see config.MethodConfig): a depth router or none, experts or one
feed-forward. `conf/method/<name>.yaml` places it there, and most methods need nothing else. A method
that is more than a point brings a module `bench/methods/<name>.py` with a function

    build_layers(model: ModelConfig, method: MethodConfig) -> list[Layer]

whose layers follow `bench/model/block.py`; its own values are in `method.options`.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from importlib.util import find_spec

import torch

from bench.config.schema import ExpertsConfig, MethodConfig, ModelConfig
from bench.methods.depth import DepthRouted
from bench.methods.experts import EXPERTS
from bench.model import Attention, Block, FeedForward, Residual, Transformer
from bench.model.block import Branch, Layer


def layer_count(model: ModelConfig, method: MethodConfig) -> int:
    """Layers of the method, given its dense twin's."""
    return max(1, round(model.n_layers * method.layers))


def build_layers(model: ModelConfig, method: MethodConfig) -> list[Layer]:
    """The layers of any point on the two axes."""
    layers: list[Layer] = []
    for layer in range(layer_count(model, method)):
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
    """The whole network of a method, initialised from `seed` alone."""
    own = f"bench.methods.{method.name}"
    layers = import_module(own).build_layers if find_spec(own) else build_layers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shaped = dataclasses.replace(model, n_layers=layer_count(model, method))
        return Transformer(shaped, layers(model, method), vocab_size)
