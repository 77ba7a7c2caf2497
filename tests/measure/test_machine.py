"""Which commit a record names, and what training does to the allocator."""

import os
import subprocess
import sys

import pytest

from bench.measure import machine


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A commit that holds `bench/measure/machine.py`; git without the user's own settings."""
    for key, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a name")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "name@example.org")
    for place in ("bench/measure", "conf"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "bench" / "measure" / "machine.py").write_text("code")
    (tmp_path / "conf" / "config.yaml").write_text("values")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def _commit_from(path, monkeypatch):
    monkeypatch.setattr(machine, "__file__", str(path))
    return machine.git_commit()


def test_commit_is_marked_dirty_where_code_or_values_differ(checkout, monkeypatch):
    own = checkout / "bench" / "measure" / "machine.py"
    commit = _commit_from(own, monkeypatch)
    assert len(commit) == 12 and int(commit, 16)
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("new")
    assert _commit_from(own, monkeypatch) == commit
    own.write_text("other code")
    assert _commit_from(own, monkeypatch) == f"{commit}-dirty"
    own.write_text("code")
    (checkout / "conf" / "config.yaml").write_text("other values")
    assert _commit_from(own, monkeypatch) == f"{commit}-dirty"


def test_code_installed_in_another_checkout_has_no_commit(checkout, monkeypatch):
    installed = checkout / "venv" / "site-packages" / "bench" / "machine.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("code")
    assert _commit_from(installed, monkeypatch) is None


def test_allocator_is_tuned_before_the_first_tensor_on_linux():
    """In a process of its own: torch reads the setting once, and mallopt lasts."""
    code = """
import os, sys
import bench.measure.machine as machine
assert "THP_MEM_ALLOC_ENABLE" not in os.environ
machine.keep_freed_memory()
assert (os.environ.get("THP_MEM_ALLOC_ENABLE") == "1") == (sys.platform == "linux")
"""
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_allocator_is_left_alone_elsewhere(monkeypatch, platform):
    monkeypatch.setattr(machine.sys, "platform", platform)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: pytest.fail("only Linux has this call"))
    machine.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())
    machine.keep_freed_memory()
