"""Help, mistakes and dry runs on macOS and Windows, as far as Linux can show: without what only Linux or POSIX has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The libraries have code of their own for each system, so modules are hidden from bench alone, after torch is loaded.
ELSEWHERE = """
import builtins, ctypes, json, os, sys, types
import asyncio, fvcore.nn, hydra, lm_eval, pydantic.main, pydantic.type_adapter, torch, tqdm

system, commands = sys.argv[1], json.loads(sys.argv[2])
hidden = {"fcntl", "grp", "pwd", "resource", "termios"} if system == "win32" else set()
lacking = ["fork", "getloadavg", "getuid", "killpg", "pread", "sysconf", "uname"] if system == "win32" else []
import_module, load_library = builtins.__import__, ctypes.CDLL.__init__

def import_elsewhere(name, scope=None, *rest):
    if str((scope or {}).get("__name__")).startswith("bench"):
        if name in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "msvcrt" and system == "win32":
            return types.ModuleType(name)
    return import_module(name, scope, *rest)

def load_elsewhere(self, name, *rest, **more):
    if name is None and system == "win32":
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    load_library(self, name, *rest, **more)

for name in [*lacking, "sched_getaffinity"]:
    delattr(os, name)
builtins.__import__, ctypes.CDLL.__init__, sys.platform = import_elsewhere, load_elsewhere, system
from bench.__main__ import main
print([main(words) for words in commands])
"""


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_help_mistake_and_dry_runs_work_on(system, tmp_path):
    commands = [["--help"], ["+method=mod", "model.n_heads=5"], ["+method=mod", "dry_run=true"],
                ["+study=isoflop_cpu", "dry_run=true"]]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, system, json.dumps(commands)], cwd=tmp_path,
                          capture_output=True, encoding="cp1252",
                          env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.endswith("[0, 2, 0, 0]\n"), done.stderr
    for said in ("usage: python -m bench +method=NAME", "Nothing was trained.", "A run takes at most"):
        assert said in done.stdout
    assert done.stderr.startswith("error: model.n_heads=5 does not divide")
    assert list(tmp_path.iterdir()) == []
