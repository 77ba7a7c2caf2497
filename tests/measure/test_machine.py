"""Which code a record says it was made by: a checkout's commit, and nobody else's."""

import subprocess

import pytest

from bench.measure import machine


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A commit that holds `bench/measure/machine.py`; git in it, without its user's own settings."""
    for key, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a name")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "name@example.org")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "machine.py").write_text("code")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def _commit_from(path, monkeypatch):
    monkeypatch.setattr(machine, "__file__", str(path))
    return machine.git_commit()


def test_a_checkout_names_its_commit_and_whether_code_differs_from_it(checkout, monkeypatch):
    own = checkout / "bench" / "machine.py"
    commit = _commit_from(own, monkeypatch)
    assert len(commit) == 12 and int(commit, 16)
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("new")
    assert _commit_from(own, monkeypatch) == commit
    own.write_text("other code")
    assert _commit_from(own, monkeypatch) == f"{commit}-dirty"


def test_code_installed_inside_another_project_s_checkout_has_no_commit(checkout, monkeypatch):
    installed = checkout / "venv" / "site-packages" / "bench" / "machine.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("code")
    assert _commit_from(installed, monkeypatch) is None
