"""One process at a time: a lease keeps others out, tells them who has it, and ends with its holder."""

import os
import subprocess
import sys

import pytest

from bench.errors import UserError
from bench.records.lease import lease

HOLD = """
import sys, time
from pathlib import Path
from bench.records.lease import lease
with lease(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder, seconds):
    """Another process that holds `folder`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def refuse(holder):
    raise UserError(holder)


def test_lease_of_a_held_folder_names_the_holder(tmp_path):
    process = hold(tmp_path, 60)
    with pytest.raises(UserError, match=f"process {process.pid} on "), lease(tmp_path, refuse):
        pass
    process.kill()
    process.wait()
    with lease(tmp_path, refuse):  # released by its death
        pass
    assert list(tmp_path.iterdir()) == []


def test_lease_waits_for_the_end_of_the_holder(tmp_path):
    process, told = hold(tmp_path, 1), []
    with lease(tmp_path, told.append):
        assert process.wait(timeout=5) == 0
    assert told == [f"process {process.pid} on {os.uname().nodename}"]


def test_lease_never_has_two_holders(tmp_path):
    """Each of many processes waits for the file that another deletes; a counter would lose what two do at once."""
    script = """
import sys
from pathlib import Path
from bench.records import lease
lease._POLL = 0.001
count = Path(sys.argv[1]) / "count"
for _ in range(20):
    with lease.lease(count.parent, lambda holder: None):
        count.write_text(str(int(count.read_text() or 0) + 1))
"""
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"


def test_lease_of_a_new_folder_leaves_nothing(tmp_path):
    with lease(tmp_path / "a" / "b", refuse):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_reports_written_at_once_are_both_whole(tmp_path):
    script = """
import sys
from pathlib import Path
from bench.records.files import beside
for number in range(40):
    with beside(Path(sys.argv[1]) / "report") as fresh:
        (fresh / "one").write_text(sys.argv[2])
        (fresh / "two").write_text(sys.argv[2])
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    (report,) = tmp_path.iterdir()
    assert (report / "one").read_text() == (report / "two").read_text()
