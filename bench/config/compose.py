"""From command-line words to typed configurations, by Hydra; its errors become one clear line each."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.config import plugins
from bench.config.schema import MethodConfig, RunConfig
from bench.config.validate import check
from bench.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf"  # where an installed wheel carries it
if not CONF.is_dir():  # a checkout
    CONF = _PACKAGE.parent / "conf"

_MOST_RUNS = 10_000  # of a sweep
_CHOSEN_BY_NAME = ("method", "study")  # groups that the defaults leave open: `method=mod` means `+method=mod`


def options(group: str) -> list[str]:
    """The names one may choose from in a group of conf/; for methods, those of installed packages too."""
    installed = plugins.method_files() if group == "method" else {}
    return sorted({path.stem for path in (CONF / group).glob("*.yaml")} | set(installed))


def method_file(name: str) -> Path:
    """The YAML of a method. Raises UserError where an installed package brings one of the same name."""
    own, installed = CONF / "method" / f"{name}.yaml", plugins.method_files().get(name)
    if installed is not None and own.is_file():
        raise UserError(f"method {name} is in two places, {own} and {installed}: remove or rename one.")
    return installed or own


def groups() -> list[str]:
    """The groups of conf/."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def expand(words: list[str], multirun: bool) -> list[list[str]]:
    """One list of overrides a run: sweeps such as `seed=0,1,2` are multiplied out, first word slowest."""
    words = [_with_plus(word) for word in words]
    choices = []
    for word, override in zip(words, _parsed(words), strict=True):
        if override.is_delete():
            raise UserError(f"{word}: nothing can be left out. Write KEY=VALUE, for example seed=1.")
        if not override.is_sweep_override():
            choices.append([word])
        elif multirun:
            choices.append(_values(word, override))
        else:
            raise UserError(f"{word} lists several values; a sweep needs -m: python -m bench -m {' '.join(words)}")
    if math.prod(map(len, choices)) > _MOST_RUNS:
        raise UserError(f"this sweep has {math.prod(map(len, choices)):,} runs; at most {_MOST_RUNS:,} are allowed.")
    return [list(run) for run in itertools.product(*choices)]


def _parsed(words: list[str]) -> list[Override]:
    parsed: list[Override] = []
    for word in words:
        try:
            parsed += OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            raise UserError(
                f"cannot read {word}: write KEY=VALUE, for example seed=1; a value with other characters than letters, "
                "digits and . _ - / goes in quotes, such as 'name=\"é\"'."
            ) from error
    return parsed


def _values(word: str, override: Override) -> list[str]:
    """`key=value` for each value of a sweep."""
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), _MOST_RUNS + 1))
    except HydraException as error:
        raise UserError(f"{word} cannot be swept; list the values, such as seed=0,1,2.") from error
    if not values:
        raise UserError(f"{word} lists no value; list some, such as seed=0,1,2.")
    return [f"{override.get_key_element()}={value}" for value in values]


def _with_plus(word: str) -> str:
    if word.startswith("method.options."):  # checked by the method's own dataclass, which may have more than its YAML
        return f"++{word}"
    return f"+{word}" if word.split("=")[0] in _CHOSEN_BY_NAME else word


def configure(overrides: list[str]) -> RunConfig:
    """The typed, checked configuration of one run.

    Raises UserError for an unknown key or option, a value of the wrong kind, or one that cannot work.
    """
    ConfigStore.instance().store(name="schema", node=RunConfig)
    try:
        with initialize_config_dir(str(CONF), version_base=None):
            composed = _compose(overrides)
        _choose_variant(composed)
        extra = next(_unknown_keys(composed), None)
        if extra is not None:
            raise UserError(f"unknown key {extra}{_suggest(extra)}")
        missing = OmegaConf.missing_keys(composed)
        if missing:
            raise UserError(f"{sorted(missing)[0]} must be given.")
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error
    assert isinstance(config, RunConfig)
    check(config)
    method_file(config.method.name)
    config.method.options = plugins.resolved_options(config.method)
    return config


def configure_method(words: str) -> MethodConfig:
    """The method that a study calls NAME or NAME/VARIANT, with KEY=VALUE after it where there are any.

    Raises UserError as `configure` does.
    """
    first, *values = words.split()
    name, _, variant = first.partition("/")
    return configure([f"+method={name}", *([f"method.variant={variant}"] if variant else []), *values]).method


def _compose(overrides: list[str]) -> DictConfig:
    try:
        _check_groups(overrides)
        return compose("config", [*map(_with_plus, overrides), *_search_path()])
    except AssertionError as error:  # OmegaConf's answer to a key below one that is null
        bare = [word.lstrip("+") for word in overrides]
        below = next((w for w in bare if w.startswith(("method.depth.", "method.experts."))), " ".join(bare))
        axis = ".".join(below.split("=")[0].split(".")[:-1])
        raise UserError(f"{below} has nothing to change: this method has no {axis}.") from error


def _search_path() -> list[str]:
    """The override by which Hydra finds the YAML of installed methods."""
    found = ", ".join(f"'file://{folder}'" for folder in plugins.folders())
    return [f"hydra.searchpath=[{found}]"] if found else []


def _check_groups(overrides: list[str]) -> None:
    """Hydra's own answers to a group without a value, or chosen twice, speak of YAML files."""
    chosen: set[str] = set()
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key not in groups():
            continue
        if value in ("null", ""):
            raise UserError(f"{word.lstrip('+')} is not allowed; choose {key} from {', '.join(options(key))}.")
        if key in chosen:
            raise UserError(f"{key} is given more than once; give it once, or sweep with -m {key}=A,B.")
        chosen.add(key)


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that a + has added beside those of the schema; the free-form parts of a method may hold any."""
    schema = OmegaConf.get_type(node)
    known = {entry.name for entry in fields(schema)} if is_dataclass(schema) else None
    for key in map(str, node):
        child = None if OmegaConf.is_missing(node, key) else node[key]
        if known is not None and key not in known:
            yield f"{prefix}{key}"
        elif known is not None and isinstance(child, DictConfig):
            yield from _unknown_keys(child, f"{prefix}{key}.")


def _choose_variant(composed: DictConfig) -> None:
    """Put the chosen variant's values over the method's own."""
    method = composed.method
    if "name" not in method or OmegaConf.is_missing(method, "name"):
        raise UserError(f"no method chosen: add +method=NAME, one of {', '.join(options('method'))}.")
    if method.name not in options("method"):
        raise UserError(
            f"method.name={method.name} is not allowed; choose +method=NAME, one of {', '.join(options('method'))}."
        )
    variants = list(method.variants)
    if method.variant is not None and method.variant not in variants:
        allowed = f"one of {', '.join(variants)}" if variants else "left out: this method has no variants"
        raise UserError(f"method.variant={method.variant} is not allowed: it must be {allowed}.")
    if method.variant is not None:
        composed.method = OmegaConf.merge(method, method.variants[method.variant])
    composed.method.variants = {}


def _explain(error: Exception, overrides: list[str]) -> str:
    """Hydra's or OmegaConf's message, in one line that says what would work."""
    if isinstance(error.__cause__, OmegaConfBaseException):  # Hydra wraps what the value itself was refused for
        error = error.__cause__
    message = str(error)
    option = re.search(r"Could not find '(\w+)/([^']*)'", message)
    if option and option[1] in groups():
        return f"{option[1]}={option[2]} is unknown; choose from {', '.join(options(option[1]))}."
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is )?not in", message)
    if key:
        unknown = re.search(r"full_key: (\S+)", message)
        name = (unknown[1] if unknown else key[1] or key[2]).lstrip("+~")
        return f"unknown key {name}{_suggest(name)}"
    value = re.search(r"full_key: (\S+)", message)
    if value:
        given = next((word for word in overrides if word.lstrip("+~").split("=")[0] == value[1]), value[1])
        return f"{given} is not allowed: {_first_line(message)}"
    return f"{_first_line(message)} (while reading {' '.join(overrides)})"


def _suggest(name: str) -> str:
    known = _keys(OmegaConf.structured(RunConfig)) + groups()
    known += [f"method.{axis}.{key}" for axis in ("depth", "experts") for key in _axis_keys(axis)]
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    parent = name.rsplit(".", 1)[0]
    siblings = [key for key in known if "." in key and key.rsplit(".", 1)[0] == parent]
    return f"; {parent} has {', '.join(siblings)}." if siblings else "; bench/config/schema.py lists every key."


def _axis_keys(axis: str) -> list[str]:
    from bench.config.schema import DepthConfig, ExpertsConfig

    return [field.name for field in fields(DepthConfig if axis == "depth" else ExpertsConfig)]


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in map(str, node):
        name = f"{prefix}{key}"
        child = None if OmegaConf.is_missing(node, key) else node[key]
        found += _keys(child, f"{name}.") if isinstance(child, DictConfig) else [name]
    return found


def _first_line(error: object) -> str:
    line = str(error).strip().splitlines()[0].strip() if str(error).strip() else repr(error)
    return line if line.endswith((".", "?", "!")) else f"{line}."
