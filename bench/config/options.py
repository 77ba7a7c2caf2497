"""What conf/ offers on disk: its groups, the options of each, and what an option says of itself."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf"  # in an installed wheel
if not CONF.is_dir():  # in a checkout
    CONF = _PACKAGE.parent / "conf"

config_dirs: list[Path] = []  # folders of the user's own, searched after conf/


def add_config_dir(folder: str) -> None:
    """Search `folder`, too, in this process. Raises UserError where it is not a folder."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder.")
    if path not in config_dirs:
        config_dirs.append(path)


def groups() -> list[str]:
    """The groups that an option can be chosen of, such as `method`."""
    found = [path.name for folder in (CONF, *config_dirs) for path in folder.iterdir() if path.is_dir()]
    return sorted(name for name in set(found) if options(name))


def options(group: str) -> list[str]:
    """The names to choose from in a group."""
    return sorted({path.stem for folder in (CONF, *config_dirs) for path in (folder / group).glob("*.yaml")})


def about(group: str, name: str) -> str:
    """The comment on the first line of an option's file."""
    path = next(path for folder in (CONF, *config_dirs) if (path := folder / group / f"{name}.yaml").is_file())
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
