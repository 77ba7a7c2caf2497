"""The groups in conf/ and in installed packages: their options and the description of each."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf"  # in an installed wheel
if not CONF.is_dir():  # in a checkout
    CONF = _PACKAGE.parent / "conf"

METHODS = "bench.methods"  # the group of entry points by which an installed package brings methods
config_dirs: list[Path] = []  # folders of the user's own, searched after conf/


@cache
def installed_methods() -> dict[str, EntryPoint]:
    """The methods that installed packages bring."""
    return {point.name: point for point in entry_points(group=METHODS)}


@cache
def _installed_dirs() -> tuple[Path, ...]:
    """The `conf` folders of installed packages that bring methods."""
    found = []
    for point in installed_methods().values():
        spec = find_spec(point.module.partition(".")[0])
        found += [Path(place) / "conf" for place in spec.submodule_search_locations or []] if spec else []
    return tuple(folder for folder in dict.fromkeys(found) if folder.is_dir())


def search_dirs() -> list[Path]:
    """Where options are looked for, in this order."""
    return [CONF, *config_dirs, *_installed_dirs()]


def add_config_dir(folder: str) -> None:
    """Also search `folder` in this process. Raises UserError if it is not a folder, or of files that are not UTF-8."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder.")
    taken = [file for file in sorted(path.rglob("*.yaml")) if (CONF / file.relative_to(path)).is_file()]
    if taken:
        own = taken[0].relative_to(path)
        raise UserError(f"--config-dir {folder}: {own} would be ignored, because conf/ has one too; rename it.")
    for file in path.rglob("*.yaml"):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
            raise UserError(f"--config-dir {folder}: {file.relative_to(path)} is not UTF-8 ({found}).") from error
    if path not in config_dirs:
        config_dirs.append(path)


def groups() -> list[str]:
    """The groups that an option can be chosen of, such as `method`."""
    found = [path.name for folder in search_dirs() for path in folder.iterdir() if path.is_dir()]
    return sorted(name for name in set(found) if options(name))


def options(group: str) -> list[str]:
    """The names to choose from in a group."""
    return sorted({path.stem for folder in search_dirs() for path in (folder / group).glob("*.yaml")})


def about(group: str, name: str) -> str:
    """The comment on the first line of an option's file."""
    path = next(path for folder in search_dirs() if (path := folder / group / f"{name}.yaml").is_file())
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


@cache
def scale_shape(name: str) -> dict[str, Any]:
    """The `model` values of conf/scale/NAME.yaml; empty if there is no such file."""
    for folder in search_dirs():
        if (path := folder / "scale" / f"{name}.yaml").is_file():
            return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("model") or {}
    return {}


def check_unique(method: str) -> None:
    """Raise UserError if an installed package brings a method whose name is taken."""
    files = [path for folder in (CONF, *_installed_dirs()) if (path := folder / "method" / f"{method}.yaml").is_file()]
    places = [str(path) for path in files]
    if method in installed_methods() and CONF in (path.parents[1] for path in files):
        places.append(installed_methods()[method].value)
    if len(places) > 1:
        raise UserError(f"method {method} is in two places, {places[0]} and {places[1]}: remove or rename one.")
