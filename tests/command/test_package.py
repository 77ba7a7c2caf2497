"""What pyproject.toml says a wheel holds, against what there is."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def _folder(package: str) -> Path:
    return ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))


def test_every_package_is_in_the_wheel():
    there = {path.parent.relative_to(ROOT) for path in (ROOT / "bench").rglob("__init__.py")}
    declared = SETUPTOOLS["packages"]
    assert sorted(declared) == sorted(["bench.conf", *(".".join(folder.parts) for folder in there)])


def test_every_file_that_is_no_module_is_in_the_wheel():
    declared = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in _folder(package).glob(pattern)
    }
    there = {path for folder in ("bench", "conf") for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert declared == {path for path in there if path.suffix not in (".py", ".pyc")}
