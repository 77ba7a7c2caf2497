"""Methods with a module: where module and YAML are, and which options they declare.

The module of a method `NAME` is in one of two places: `bench/methods/modules/NAME.py` in the source tree, or an
installed package with an entry point `NAME = "package.module"` in the group `bench.methods`. That package holds the
YAML as `conf/method/NAME.yaml` below its top folder. A module is imported only when its method is chosen.
"""

from __future__ import annotations

import dataclasses
import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.config.options import installed_methods
from bench.config.options import options as names
from bench.config.schema import MethodConfig
from bench.config.validate import allowed
from bench.errors import UserError

_IN_TREE = Path(__file__).resolve().parents[1] / "methods" / "modules"


def module_of(name: str) -> ModuleType | None:
    """The module of method `name`; None for a method that its YAML describes entirely.

    Raises UserError for a module that cannot be imported or lacks `build_layers`, and where two places bring it.
    """
    places = [f"bench.methods.modules.{name}"] if (_IN_TREE / f"{name}.py").is_file() else []
    places += [installed_methods()[name].module] if name in installed_methods() else []
    if len(places) > 1:
        raise UserError(f"method {name} is in two places, {' and '.join(places)}: remove or rename one.")
    if not places:
        return None
    try:
        module = import_module(places[0])
    except Exception as error:  # whatever a module of somebody else's raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"method {name} is in {places[0]}, which cannot be imported: {reason}.") from error
    if not callable(getattr(module, "build_layers", None)):
        raise UserError(f"method {name}: {places[0]} has no function build_layers(model, method, options).")
    return module


def source_digest(name: str) -> str | None:
    """A fingerprint of the code that method `name` brings: of its module in the tree, or of every Python file of its
    installed package. None for a method that its YAML describes entirely. Nothing is imported.
    """
    files = [path] if (path := _IN_TREE / f"{name}.py").is_file() else []
    if name in installed_methods():
        spec = find_spec(installed_methods()[name].module.partition(".")[0])
        folders = spec.submodule_search_locations if spec else None
        files += sorted(path for folder in folders or () for path in Path(folder).rglob("*.py"))
        files += [Path(spec.origin)] if spec and spec.origin and not folders else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12] if files else None


def typed_options(method: MethodConfig) -> Any:
    """`method.options` as the dataclass `Options` of the method's module; None for a method that declares none.

    Raises UserError that names the key, the value and what is allowed.
    """
    module = module_of(method.name)
    if module is None and method.options and method.name not in names("method"):
        raise UserError(f"method {method.name} is not installed: install the package that brings it.")
    declared: Any = getattr(module, "Options", None)
    if declared is not None and not dataclasses.is_dataclass(declared):
        raise UserError(f"method {method.name}: its Options must be a dataclass.")
    known = [field.name for field in dataclasses.fields(declared)] if declared else []
    for key in method.options:
        if key not in known:
            right = f"one of {', '.join(known)}" if known else f"left out, because {method.name} has no options"
            raise UserError(f"unknown key method.options.{key}: it must be {right}.")
    if declared is None:
        return None
    try:
        return TypeAdapter(declared).validate_python(method.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(["method.options", *map(str, first["loc"])])
        if first["type"] == "missing":
            raise UserError(f"{key} must be given.") from error
        own = first["type"] in ("value_error", "assertion_error")  # the words of the module
        what = _one_line(first["ctx"]["error"]) if own else f"it must be {allowed(first)}"
        given = "" if own and not first["loc"] else f"={first['input']!r}"
        raise UserError(f"{key}{given} is not allowed: {what[:1].lower()}{what[1:]}.") from error
    except Exception as error:  # a type that cannot be checked, or whatever the class raises
        raise UserError(f"method {method.name}: its Options cannot be used ({_one_line(error)}).") from error


def _one_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ") or type(error).__name__


def resolved_options(method: MethodConfig) -> dict[str, Any]:
    """`method.options` with every default filled in, as plain values. Raises UserError as `typed_options` does."""
    options = typed_options(method)
    if options is None:
        return {}
    try:
        return TypeAdapter(type(options)).dump_python(options, mode="json")
    except Exception as error:  # a default that no record can hold
        raise UserError(f"method {method.name}: its Options cannot be recorded ({_one_line(error)}).") from error
