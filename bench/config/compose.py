"""Turns the words of the command line into typed configurations, by Hydra; each error becomes one clear line."""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING as REQUIRED
from dataclasses import Field, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bench.config import plugins
from bench.config.explain import explain, suggest
from bench.config.identity import MethodId
from bench.config.options import CONF, check_unique, groups, options, search_dirs
from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, RunConfig
from bench.config.tuned import apply_tuned
from bench.config.validate import check, check_threads, validated
from bench.errors import UserError

_MOST_RUNS = 10_000  # of a sweep
_CHOSEN_BY_NAME = ("method", "study")  # groups that the defaults leave open: `method=mod` means `+method=mod`
_AXES = {"depth": DepthConfig, "experts": ExpertsConfig}
_WITHOUT_JOB = [  # what Hydra would run a job by, which costs as much to compose as all of conf/
    f"~hydra/{part}" for part in ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging")
]
_NOT_HYDRA_S = {  # keys of Hydra that people set, and what to use instead
    "hydra.run": "set results_dir= and name= instead",
    "hydra.sweep": "set results_dir= and name= instead",
    "hydra.job": "set name= instead",
    "hydra.searchpath": "add a folder of configuration by --config-dir DIR instead",
    "hydra.mode": "add -m for a sweep instead",
}


def expand(words: Sequence[str], multirun: bool) -> list[list[str]]:
    """One list of overrides per run: sweeps such as `seed=0,1,2` are multiplied out, first word slowest."""
    words = [_with_plus(word) for word in words]
    overrides = [_parse(word) for word in words]
    if not multirun:
        for word, override in zip(words, overrides, strict=True):
            if override.is_sweep_override():
                raise UserError(f"{word} lists several values; a sweep needs -m: python -m bench -m {' '.join(words)}")
    runs = math.prod(_sweep_length(word, override) for word, override in zip(words, overrides, strict=True))
    if runs > _MOST_RUNS:
        raise UserError(f"this sweep has {runs:,} runs; at most {_MOST_RUNS:,} are allowed.")
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [word]
        for word, override in zip(words, overrides, strict=True)
    ]
    return [list(run) for run in itertools.product(*choices)]


def _with_plus(word: str) -> str:
    if word.startswith("method.options."):  # checked by the method's own dataclass, which may have more than its YAML
        return f"++{word}"
    return f"+{word}" if word.split("=")[0] in _CHOSEN_BY_NAME else word


def _parse(word: str) -> Override:
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except HydraException:
        override = None
    if override is None or not override.key_or_group or override.package is not None:
        raise UserError(
            f"cannot read {word}: write KEY=VALUE, for example seed=1; put a value with characters other than "
            "letters, digits and . _ - / in quotes, such as 'name=\"é\"'."
        )
    if override.is_delete():
        raise UserError(f"{word}: a key cannot be deleted. Write KEY=VALUE, for example seed=1.")
    key = override.key_or_group.replace("/", ".")
    if key.split(".")[0] == "hydra":
        instead = next(
            (each for start, each in _NOT_HYDRA_S.items() if f"{key}.".startswith(f"{start}.")), "leave it out"
        )
        raise UserError(f"{word} is not allowed: bench uses Hydra for configuration only; {instead}.")
    return override


def _sweep_length(word: str, override: Override) -> int:
    """How many values the word gives, without listing them. Raises UserError for none, or for no list."""
    if not override.is_sweep_override():
        return 1
    sweep: Any = override.value()
    try:
        if isinstance(sweep, RangeSweep):
            start, stop, step = (float(part or 0) for part in (sweep.start, sweep.stop, sweep.step))
            length = max(0, math.ceil((stop - start) / step))
        else:
            length = sum(1 for _ in override.sweep_string_iterator())
    except (HydraException, ArithmeticError, ValueError, TypeError) as error:
        raise UserError(f"{word} cannot be swept; list the values, such as seed=0,1,2.") from error
    if not length:
        raise UserError(f"{word} lists no value; list some, such as seed=0,1,2.")
    return length


def configure(overrides: Sequence[str], config_name: str = "config") -> RunConfig:
    """The typed, checked configuration of one run.

    Raises UserError for an unknown key or option, a value of the wrong type, or an invalid value.
    """
    composed = _composed(overrides, config_name)
    if OmegaConf.is_missing(composed.method, "name"):
        raise UserError(f"no method chosen: add +method=NAME, one of {', '.join(options('method'))}.")
    try:
        missing = OmegaConf.missing_keys(composed)
        if missing:
            raise UserError(f"{sorted(missing)[0]} must be given.")
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_in_one_line(error, overrides)) from error
    assert isinstance(values, dict)
    config = validated({str(key): value for key, value in values.items()})
    check_threads(config)
    check_unique(config.method.name)
    config.method.options = plugins.resolved_options(config.method)
    config = apply_tuned(config, overrides)
    check(config)
    return config


def configure_method(words: str) -> MethodConfig:
    """The method that a study calls NAME or NAME/VARIANT, with KEY=VALUE after it if there are any.

    Raises UserError as `configure` does.
    """
    first, *values = words.split()
    return configure([*MethodId.parse(first).words, *values]).method


def as_yaml(overrides: Sequence[str], config_name: str = "config") -> str:
    """The composed configuration of one run, checked where a method is chosen, as `--cfg job` prints it."""
    composed = _composed(overrides, config_name)
    if not OmegaConf.is_missing(composed.method, "name"):
        configure(overrides, config_name)
    return OmegaConf.to_yaml(composed)


def print_info(topic: str, overrides: Sequence[str], config_name: str = "config") -> None:
    """How Hydra composes a configuration: `--info defaults-tree`, `searchpath` and others."""
    _composed(overrides, config_name)  # for its errors, which are clearer
    with _hydra(config_name) as (hydra, search):
        hydra.show_info(topic, config_name, [*_not_of_method(overrides), *search])


def complete(command: str) -> None:
    """Hydra's shell completion: `command` is install=SHELL, uninstall=SHELL or query=SHELL."""
    sys.argv[0] = "bench"  # the console script: shells complete the words of a command, not of a module
    if line := os.environ.get("COMP_LINE"):  # Hydra composes the words before the last one, which need their +
        os.environ["COMP_LINE"] = re.sub(rf" ({'|'.join(_CHOSEN_BY_NAME)})=(?=\S+ )", r" +\1=", line)
    with _hydra("config") as (hydra, _):
        try:
            hydra.shell_completion("config", [command])
        except (ValueError, KeyError) as error:
            raise UserError(
                f"--shell-completion {command}: give install=SHELL or uninstall=SHELL; SHELL is bash, zsh or fish."
            ) from error


@contextmanager
def _hydra(config_name: str) -> Iterator[tuple[Hydra, list[str]]]:
    """Hydra where `config_name` is, and the override that has it search the other folders."""
    ConfigStore.instance().store(name="schema", node=_SCHEMA)
    main = next((each for each in search_dirs() if (each / f"{config_name}.yaml").is_file()), CONF)
    others = [each for each in search_dirs() if each != main]
    quoted = ",".join('"file://' + re.sub(r'(["\\])', r"\\\1", str(each)) + '"' for each in others)
    with initialize_config_dir(str(main), version_base=None):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra, [f"hydra.searchpath=[{quoted}]"] if others else []


def _composed(overrides: Sequence[str], config_name: str) -> DictConfig:
    """What Hydra composes, with the method's variant chosen, of known keys alone."""
    _check_groups(overrides)
    try:
        with _hydra(config_name) as (_, search):
            words = [*_not_of_method(overrides), *search, *_WITHOUT_JOB]
            composed = compose(config_name, words, return_hydra_config=True)
            chosen = composed.hydra.runtime.choices.get("method")
            with open_dict(composed):
                del composed["hydra"]
        if OmegaConf.get_type(composed) is not _SCHEMA:
            raise UserError(f"--config-name {config_name}: its defaults must start with `config`, which has every key.")
        _settle_method(composed, chosen, overrides)
    except AssertionError as error:  # OmegaConf's answer to a key below one that is null
        raise UserError(_without_parent(overrides)) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_in_one_line(error, overrides)) from error
    extra = next(_unknown_keys(composed), None)
    if extra is not None:
        raise UserError(f"unknown key {extra}{suggest(extra)}")
    return composed


def _not_of_method(overrides: Sequence[str]) -> list[str]:
    """All but a method's values, which come after those of its variant."""
    return [word for word in overrides if not word.lstrip("+").startswith("method.")]


def _check_groups(overrides: Sequence[str]) -> None:
    """Refuse a group without a value or chosen twice: Hydra's own messages speak of YAML files."""
    names, chosen = groups(), set[str]()
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key not in names:
            continue
        if value in ("null", "") or value[0] in "{[":
            raise UserError(f"{word.lstrip('+')} is not allowed; choose {key} from {', '.join(options(key))}.")
        if key in chosen:
            raise UserError(f"{key} is given more than once; give it once, or sweep with -m {key}=A,B.")
        chosen.add(key)
    if chosen.issuperset(_CHOSEN_BY_NAME):
        raise UserError("a study defines its own methods: give +study=NAME or +method=NAME, not both.")


def _settle_method(composed: DictConfig, chosen: str | None, overrides: Sequence[str]) -> None:
    """Put the variant's values over those of the `chosen` method, and those of the command line over both."""
    own = [(word, _parse(word)) for word in overrides if word.lstrip("+").startswith("method.")]
    for word, override in own:
        _check_method_value(word.lstrip("+"), override)
        if override.key_or_group == "method.variant":
            if override.value() is None and composed.method.variant is not None:
                allowed = ", ".join(composed.method.variants)
                raise UserError(f"{word.lstrip('+')} is not allowed: this method is one of {allowed}.")
            composed.method.variant = override.value()
    method = composed.method
    if OmegaConf.is_missing(method, "name"):
        if chosen:
            raise UserError(f"method={chosen} is not allowed: its file must give name: {chosen}.")
        if own:
            raise UserError(f"{own[0][0]} needs a method: add +method=NAME, one of {', '.join(options('method'))}.")
        return
    if chosen != method.name and (chosen or composed.study is None):  # a study names methods of its own
        place = f"conf/method/{chosen}.yaml must give" if chosen else "choose it in defaults, as method: NAME, or by"
        raise UserError(f"method.name={method.name} is not allowed: {place} {chosen or '+method=NAME'}.")
    variants = list(method.variants)
    if method.variant is not None and method.variant not in variants:
        allowed = f"one of {', '.join(variants)}" if variants else "left out, because this method has no variants"
        raise UserError(f"method.variant={method.variant} is not allowed: it must be {allowed}.")
    if method.variant is not None:
        composed.method = OmegaConf.merge(method, method.variants[method.variant])
    composed.method.variants = {}
    for word, override in own:
        _set_method_value(composed, word.lstrip("+"), override)
    _check_null_experts(composed.method)


def _check_null_experts(method: DictConfig) -> None:
    """With null experts a mixture of experts is the integrated MoDE, and without them that is a mixture of experts."""
    chosen = MethodId(method.name, method.variant)
    others = {MethodId("moe"): True, MethodId("mode", "integrated"): False}  # another method with, or without them
    if chosen in others and method.depth is None and (method.experts.n_noop > 0) == others[chosen]:
        (other,) = others.keys() - {chosen}
        raise UserError(
            f"method.experts.n_noop={method.experts.n_noop} would turn {chosen.title} into {other.title}; choose "
            f"{' '.join(other.words)}."
        )


def _check_method_value(word: str, override: Override) -> None:
    """A method's name says what it does: refuse values that would turn it into another method."""
    key, value = override.key_or_group, override.value()
    if key == "method.name":
        raise UserError(
            f"{word} is not allowed: choose the method itself, one of method={', '.join(options('method'))}."
        )
    if key.startswith("method.variants"):
        raise UserError(f"{word} is not allowed: choose a variant by method.variant=NAME.")
    if key.removeprefix("method.") in _AXES and value is None:
        raise UserError(
            f"{word} is not allowed: it would turn this method into another; choose a method without it, "
            "such as method=dense."
        )


def _set_method_value(composed: DictConfig, word: str, override: Override) -> None:
    key, value = override.key_or_group, override.value()
    axis = key.split(".")[1]
    if axis in _AXES and composed.method[axis] is None:
        if key != f"method.{axis}" or not isinstance(value, dict):
            raise UserError(f"{word} has no effect: this method has no method.{axis}.")
        if plugins.source_digest(composed.method.name) is not None:
            raise UserError(f"{word} has no effect: the module of this method has no method.{axis}.")
        composed.method[axis] = OmegaConf.structured(_hydra_type(_AXES[axis]))
        if composed.method.name != "dense":  # which takes no values
            point = MethodId.at(composed.method.depth is not None, composed.method.experts is not None)
            composed.method.name, composed.method.variant = point.name, point.variant
    added = override.is_add() or override.is_force_add()
    # options are checked by the method's own dataclass, which may have more of them than its YAML
    OmegaConf.update(composed, key, value, merge=True, force_add=added or axis == "options")


def _without_parent(overrides: Sequence[str]) -> str:
    for word in (word.lstrip("+") for word in overrides):
        if word.startswith("study.grid.") and any(each.startswith("+study=") for each in overrides):
            return f"{word} has no effect: this study has no grid. +study=isoflop has one."
        if word.startswith("study."):
            names = ", ".join(options("study"))
            return f"{word} has no effect: no study is chosen. Add +study=NAME, one of {names}."
        if word.startswith("baseline."):
            return f"{word} has no effect: set {word.removeprefix('baseline.')}, which the baseline shares."
    return f"{' '.join(overrides)}: a key is set below one that is null."


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that a + has added to those of the schema; the free-form parts of a method may hold any."""
    schema = OmegaConf.get_type(node)
    known = {entry.name for entry in fields(schema)} if is_dataclass(schema) else None
    for key in map(str, node):
        child = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if known is not None and key not in known:
            yield f"{prefix}{key}"
        elif known is not None and isinstance(child, DictConfig) and not child._is_none():
            yield from _unknown_keys(child, f"{prefix}{key}.")


def _in_one_line(error: Exception, overrides: Sequence[str]) -> str:
    if isinstance(error.__cause__, OmegaConfBaseException):  # Hydra wraps what the value itself was refused for
        error = error.__cause__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: not YAML ({error.problem})."
    return explain(str(error) or repr(error), overrides)


@cache
def _hydra_type(hint: Any) -> Any:
    """A type of the schema as OmegaConf knows it: 2.3 takes no `Literal`, so choices become text until validated."""
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        parts = [(each.name, _hydra_type(hints[each.name]), _default(each, hints[each.name])) for each in fields(hint)]
        return make_dataclass(hint.__name__, parts)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return str
    if origin is UnionType or type(None) in arguments:
        given = tuple(_hydra_type(each) for each in arguments if each is not type(None))
        return Optional[Union[given]]  # noqa: UP007, UP045
    if origin in (list, dict):
        return origin[tuple(_hydra_type(each) for each in arguments)]
    return hint


def _default(entry: Field, hint: Any) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return field(default_factory=_hydra_type(hint))
    return (
        field(default=entry.default) if entry.default is not REQUIRED else field(default_factory=entry.default_factory)
    )


_SCHEMA = _hydra_type(RunConfig)
