"""A folder is used by one process at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from uno_jax.process.lock import LockError, locked

HOLD = """
import pathlib, sys, time
from uno_jax.process.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_holder_is_refused_with_the_first_one_named(tmp_path):
    with locked(tmp_path / "run") as holds:
        assert holds
        refused = pytest.raises(LockError, match=rf"run: in use by process {os.getpid()} on .* since 2")
        with refused as error, locked(tmp_path / "run"):
            pass
    assert "\n" not in str(error.value)


def test_a_folder_is_free_after_its_holder_has_ended(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            pass


def test_a_killed_process_holds_no_lock(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockError, match=f"in use by process {holder.pid} "), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path) as holds:
        assert holds


def refuse(folder):
    with pytest.raises(ValueError, match="refused"), locked(folder):
        raise ValueError("refused")


def test_an_error_leaves_no_empty_folder_that_was_not_there(tmp_path):
    refuse(tmp_path / "runs" / "new")
    assert os.listdir(tmp_path) == []
    (tmp_path / "own").mkdir()
    refuse(tmp_path / "own")
    assert os.listdir(tmp_path / "own") == []


def test_an_error_keeps_a_folder_with_anything_in_it_and_the_lock_of_an_earlier_run(tmp_path):
    with contextlib.suppress(ValueError), locked(tmp_path / "run"):
        (tmp_path / "run" / "metrics").write_text("")
        raise ValueError("refused")
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "metrics"]
    with locked(tmp_path / "earlier"):
        pass
    refuse(tmp_path / "earlier")
    assert os.listdir(tmp_path / "earlier") == [".lock"]


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LockError, match=r"file/run: cannot be written \(Not a directory\)"),
        locked(tmp_path / "file/run"),
    ):
        pass
    with pytest.raises(LockError, match=r"file: cannot be written \(File exists\)"), locked(tmp_path / "file"):
        pass
