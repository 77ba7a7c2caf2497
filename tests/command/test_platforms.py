"""Help, a mistake and dry runs on Windows, as far as Linux can show: without what only Linux and POSIX have."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The libraries have code of their own for each system: they are loaded first, and modules are hidden from bench alone.
WINDOWS = """
import asyncio, builtins, ctypes, json, os, sys, types
import fvcore.nn, hydra, lm_eval, pydantic.type_adapter, torch, tqdm

import_module, load_library = builtins.__import__, ctypes.CDLL.__init__

def import_on_windows(name, scope=None, *rest):
    if str((scope or {}).get("__name__")).startswith("bench"):
        if name in ("fcntl", "grp", "pwd", "resource", "termios"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "msvcrt":
            return types.ModuleType(name)
    return import_module(name, scope, *rest)

def load_on_windows(self, name, *rest, **more):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    load_library(self, name, *rest, **more)

for name in ("fork", "getloadavg", "getuid", "killpg", "pread", "sched_getaffinity", "sysconf", "uname"):
    delattr(os, name)
builtins.__import__, ctypes.CDLL.__init__, sys.platform = import_on_windows, load_on_windows, "win32"
from bench.__main__ import main
print([main(words) for words in json.loads(sys.argv[1])])
"""


def test_help_mistake_and_dry_runs_work_on_windows(tmp_path):
    plan = ["dry_run=true", f"data.cache_dir={ROOT / '.cache' / 'bench'}"]
    commands = [["--help"], ["+method=mod", "model.n_heads=5"], ["+method=mod", *plan], ["+study=isoflop_cpu", *plan]]
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, json.dumps(commands)], cwd=tmp_path, capture_output=True, encoding="cp1252",
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.endswith("[0, 2, 0, 0]\n"), done.stderr
    for said in ("usage: python -m bench +method=NAME", "Nothing was trained.", "A run takes at most"):
        assert said in done.stdout
    assert done.stderr.startswith("error: model.n_heads=5 does not divide")
    assert list(tmp_path.iterdir()) == []
