"""Turns errors of Hydra and OmegaConf into one line that names the key, the value and what works."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from bench.config.options import CONF, config_dirs, groups, options
from bench.config.schema import RunConfig

_EXPECTED = {
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "is not convertible to float": "a number",
    "'Optional[Union[int, float]]'": "a number",
    "is not a valid bool": "true or false",
    "to string": "text",
    "to Dict[": "keys with values in braces",
    "is not Optional": "set; null is not a valid value",
}


def explain(message: str, overrides: Sequence[str]) -> str:
    """An error of Hydra or OmegaConf about `overrides`, in one line that says what works."""
    option = re.search(r"Could not find '(\w+)/([^']*)'", message)
    if option and option[1] in groups():
        return f"{option[1]}={option[2]} is unknown; choose from {', '.join(options(option[1]))}."
    primary = re.search(r"Cannot find primary config '([^']*)'", message)
    if primary:
        return (
            f"--config-name {primary[1]}: there is no {primary[1]}.yaml in {', '.join(map(str, (CONF, *config_dirs)))}."
        )
    no_keys = re.search(r"primary config '([^']+)' must be a DictConfig|In '([^']+)': ValidationError", message)
    if no_keys:
        return f"{no_keys[1] or no_keys[2]}.yaml must hold keys and values, such as seed: 1."
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is )?not in", message)
    full_key = re.search(r"full_key: (\S+)", message)
    if key:
        name = (full_key[1] if full_key else key[1] or key[2]).lstrip("+~")
        return f"unknown key {name}{suggest(name)}"
    if full_key:
        name = full_key[1].partition("[")[0]  # of an item of a list: the list's
        words = [word.lstrip("+") for word in overrides]
        below = next((word for word in words if word.startswith(f"{name}.")), None)
        if below is not None and name in _KEYS:
            return f"unknown key {below.partition('=')[0]}; {name} has no keys of its own."
        given = next((word for word in words if word.startswith(f"{name}=")), name)
        return f"{given} is not allowed: {_allowed(name, given, message)}"
    return f"{_first_line(message)} (while reading {' '.join(overrides)})"


def _allowed(key: str, given: str, message: str) -> str:
    expected = next((words for part, words in _EXPECTED.items() if part in message), None)
    if "is not a ListConfig" in message:
        expected = f"a list, such as {key}=[{given.partition('=')[2]}]"
    elif any(part in message for part in ("is not a subclass of", "Cannot merge DictConfig")) and key not in _KEYS:
        parts = [each for each in _KEYS if each.startswith(f"{key}.")]
        expected = f"set key by key: {', '.join(parts)}" if parts else None
    return f"it must be {expected}." if expected else _first_line(message)


def suggest(name: str) -> str:
    """The end of a message about an unknown key: the likely intended one."""
    close = difflib.get_close_matches(name, _KEYS + groups(), n=2, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    parent = name.rsplit(".", 1)[0]
    siblings = [key for key in _KEYS if "." in key and key.rsplit(".", 1)[0] == parent]
    return f"; {parent} has {', '.join(siblings)}." if siblings else "; bench/config/schema.py lists every key."


def _first_line(message: str) -> str:
    line = message.strip().partition("\n")[0].strip()
    return line if line.endswith((".", "?", "!")) else f"{line}."


def _keys(schema: Any, prefix: str = "") -> list[str]:
    """Every key of a part of the schema, including keys of parts that may be null."""
    found: list[str] = []
    for name, hint in get_type_hints(schema).items():
        part = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        found += _keys(part, f"{prefix}{name}.") if part else [f"{prefix}{name}"]
    return found


_KEYS = _keys(RunConfig)
