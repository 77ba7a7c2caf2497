"""Checks of a configuration, before anything is created and before torch is imported.

Choices and bounds of single values are in bench/config/schema.py; the rules here relate several values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.config.schema import MethodConfig, ModelConfig, RunConfig
from bench.errors import UserError

_LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary files next to it have longer names
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "finite_number": "a finite number",
    "list_type": "a list in brackets, such as [a,b]",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    "dict_type": "keys with values in braces, such as {a: 1}",
}

_EITHER = {"evaluate.limit": "a whole number of at least 1, or a share between 0 and 1"}  # keys of several types


def validated(values: Mapping[str, Any]) -> RunConfig:
    """The typed configuration of plain values, such as a record holds.

    Raises UserError for the first invalid value, with its key, the value and what is allowed.
    """
    try:
        config = _adapter().validate_python(values)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from error
    for problem in _problems(config):
        raise UserError(problem)
    return config


def check(config: RunConfig) -> None:
    """Raise UserError as `validated` does."""
    validated(asdict(config))


def check_threads(config: RunConfig) -> None:
    """Raise UserError if more threads are requested than this machine can use."""
    threads, most = config.train.threads, 4 * (os.cpu_count() or 1)
    if threads is not None and threads > most:
        raise UserError(f"train.threads={threads} is not allowed: it must be at most {most} on this machine.")


@cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def _explain(error: Any) -> str:
    """A pydantic error as one line: key, value, what is allowed."""
    key = ".".join(part for part in error["loc"] if isinstance(part, str) and part.isidentifier())  # no type's name
    given = f"{key}: {error['input']}" if isinstance(error["loc"][-1], int) else f"{key}={error['input']}"
    return f"{given} is not allowed: it must be {_EITHER.get(key) or allowed(error)}."


def allowed(error: Any) -> str:
    """What a pydantic error says would have been right, to follow `it must be`."""
    if error["type"] in _BOUNDS:
        name, words = _BOUNDS[error["type"]]
        bound = error["ctx"][name]
        return f"{words} {bound:g}" if isinstance(bound, float) else f"{words} {bound}"
    if error["type"] == "literal_error":
        return "one of " + ", ".join(re.findall("'([^']*)'", error["ctx"]["expected"]))
    return _KINDS.get(error["type"]) or error["msg"].removeprefix("Input should be ")


def _problems(config: RunConfig) -> Iterator[str]:
    """Values that contradict each other, one sentence each."""
    yield from _wrong_names(config)
    yield from _no_folders(config)
    yield from _wrong_heads(config.model)
    if (larger := config.evaluate.speed_shape) is not None:
        shape = replace(config.model, d_model=larger.d_model, n_heads=larger.n_heads)
        yield from _wrong_heads(shape, "evaluate.speed_shape")
    model, method, train = config.model, config.method, config.train
    depth, experts, layers = method.depth, method.experts, max(1, round(model.n_layers * method.layers))
    if method.name == "dense" and method != MethodConfig(name="dense"):
        yield (
            "method=dense is the baseline, so it takes no method.* values; choose another "
            "method, such as method=mod, moe or shallow."
        )
    if depth is not None and depth.every > layers:
        yield f"method.depth.every={depth.every} routes none of the {layers} layers; it must be at most {layers}."
    if model.context < 3 and config.evaluate.timing_steps and config.evaluate.decode_batch_sizes:
        yield (
            f"model.context={model.context} leaves no token for timing decoding: it must be at least 3, or "
            "evaluate.decode_batch_sizes=[]."
        )
    if experts is not None:
        yield from _wrong_experts(config)
    if method.layers != 1 and config.contract.name in ("forward_flops", "active_params", "total_params"):
        yield (
            f"contract={config.contract.name} solves for the depth that method.layers={method.layers:g} "
            f"({method.name}) sets, which would make it the dense baseline again; use contract=train_flops, tokens "
            "or wall_clock."
        )
    if train.micro_batch_size is not None and train.batch_size % train.micro_batch_size:
        yield (
            f"train.micro_batch_size={train.micro_batch_size} does not divide train.batch_size={train.batch_size}; "
            f"one of {_divisors(train.batch_size)} would."
        )


def _wrong_names(config: RunConfig) -> Iterator[str]:
    """Names that become a part of a folder's name."""
    names = {"name": config.name, "data.name": config.data.name, "scale": config.scale}
    names |= {"method.name": config.method.name, "method.variant": config.method.variant}
    names["study.name"] = config.study.name if config.study else None
    for key, name in names.items():
        if name is None:
            continue
        if not name or set(name) & set('/\\:*?"<>|') or name[0] == "." or not name.isprintable():
            yield f'{key}={name!r} must be a plain folder name, without / \\ : * ? " < > | or a leading dot.'
        if len(name.encode(errors="replace")) > _LONGEST_NAME:
            yield f"{key} is {len(name.encode())} bytes long: a folder's name may have at most {_LONGEST_NAME}."


def _no_folders(config: RunConfig) -> Iterator[str]:
    places = {"results_dir": config.results_dir, "reports_dir": config.reports_dir}
    for key, place in (places | {"data.cache_dir": config.data.cache_dir}).items():
        if not place.strip():
            yield f"{key}={place!r} is not allowed: it must name a folder; . is the working directory."


def _wrong_heads(model: ModelConfig, key: str = "model") -> Iterator[str]:
    """`key`: of the part of the configuration that has the width and the heads."""
    if model.d_model % 2:
        yield (
            f"{key}.d_model={model.d_model} is odd, but rotary positions need heads of an even width; "
            f"{_multiples(model.d_model, 2 * model.n_heads)} would work with {key}.n_heads={model.n_heads}."
        )
    if model.d_model % model.n_heads:
        yield (
            f"{key}.n_heads={model.n_heads} does not divide {key}.d_model={model.d_model}; "
            f"one of {_divisors(model.d_model, even_quotient=True)} would."
        )
    if model.d_model // model.n_heads % 2:
        yield (
            f"{key}.d_model={model.d_model} over {key}.n_heads={model.n_heads} gives heads of width "
            f"{model.d_model // model.n_heads}, but rotary positions need an even width; "
            f"one of {key}.n_heads={_divisors(model.d_model, even_quotient=True)} would work."
        )
    if model.n_kv_heads is not None and model.n_heads % model.n_kv_heads:
        yield (
            f"model.n_kv_heads={model.n_kv_heads} does not divide {key}.n_heads={model.n_heads}; "
            f"one of {_divisors(model.n_heads)} would."
        )


def _wrong_experts(config: RunConfig) -> Iterator[str]:
    model, experts = config.model, config.method.experts
    assert experts is not None
    if experts.top_k > experts.n_experts + experts.n_noop:
        yield (
            f"method.experts.top_k={experts.top_k} is more than the {experts.n_experts + experts.n_noop} there are "
            "to choose from (method.experts.n_experts + n_noop)."
        )
    if experts.routing == "expert_choice" and experts.n_noop:
        yield (
            f"method.experts.n_noop={experts.n_noop} needs method.experts.routing=token_choice: "
            "only token choice has null experts."
        )
    larger = config.evaluate.speed_shape
    for key, width in {"model": model.d_model, "evaluate.speed_shape": larger.d_model if larger else 8}.items():
        if width % 8:
            yield (
                f"{key}.d_model={width}: experts need a multiple of 8 (whole 16 bytes in each row), "
                f"such as {_multiples(width, 8)}."
            )
    if experts.hidden is not None and experts.hidden % 8:
        yield (
            f"method.experts.hidden={experts.hidden} is not allowed: it must be a multiple of 8 (whole 16 bytes in "
            f"each row), such as {_multiples(experts.hidden, 8)}."
        )


def _divisors(number: int, even_quotient: bool = False) -> str:
    found = (d for d in range(1, number + 1) if number % d == 0 and not (even_quotient and number // d % 2))
    return ", ".join(str(d) for d in found if d <= 64 or d == number)


def _multiples(number: int, factor: int) -> str:
    """The multiples of `factor` nearest to `number`, above 0."""
    below = number // factor * factor
    return " or ".join(str(each) for each in (below, below + factor) if each)
