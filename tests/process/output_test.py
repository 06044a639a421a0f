"""Commands whose output nobody reads, cannot be written, or does not exist. Each is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

SHORT = "from uno_jax.process.errors import exit_with_message\nwith exit_with_message():\n    print('a result')\n"
LONG = (
    "import sys\n"
    "from uno_jax.process.output import going_on_without_output\n"
    "with going_on_without_output():\n"
    "    for _ in range(3):\n"
    "        print('a step', flush=True)\n"
    "    open('saved', 'w').close()\n"
)
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(program: str, folder: Path, output: int | None, errors: int | None = subprocess.PIPE, *flags: str):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=output,
        stderr=errors,
        text=True,
    )


@pytest.fixture
def unread():
    """The writing end of a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def full():
    """A file on a full disk."""
    with open("/dev/full", "w") as file:
        yield file.fileno()


@pytest.mark.parametrize("flags", [[], ["-u"]])
def test_a_command_whose_reader_left_ends_as_a_shell_expects(tmp_path, unread, flags):
    done = run(SHORT, tmp_path, unread, subprocess.PIPE, *flags)
    assert (done.returncode, done.stderr) == (141, "")


@FULL
def test_output_on_a_full_disk_is_one_message(tmp_path, full):
    done = run(SHORT, tmp_path, full)
    assert done.returncode == 1
    assert done.stderr == "OSError: the standard output cannot be written (No space left on device)\n"


def test_a_long_command_goes_on_without_a_reader(tmp_path, unread):
    done = run(LONG, tmp_path, unread)
    assert (done.returncode, done.stderr) == (
        0,
        "warning: the standard output cannot be written (Broken pipe). Going on\n",
    )
    assert (tmp_path / "saved").exists()


@FULL
def test_a_long_command_goes_on_when_the_disk_of_its_log_is_full(tmp_path, full):
    assert run(LONG, tmp_path, full, full).returncode == 0
    assert (tmp_path / "saved").exists()


def test_a_process_without_standard_streams_gets_them():
    program = (
        "import sys\n"
        "sys.stdin = sys.stdout = sys.stderr = None\n"
        "from uno_jax.process.output import open_missing_streams\n"
        "open_missing_streams()\n"
        "print('a result', file=sys.stderr)\n"
        "print(sys.stdin.read())\n"
    )
    assert run(program, ROOT, None).returncode == 0


def test_a_command_in_a_removed_folder_says_so(tmp_path):
    program = (
        "import os, pathlib\n"
        "from uno_jax.process.errors import exit_with_message\n"
        "os.rmdir(os.getcwd())\n"
        "with exit_with_message():\n"
        "    pathlib.Path('data').resolve()\n"
    )
    (tmp_path / "gone").mkdir()
    done = run(program, tmp_path / "gone", subprocess.PIPE)
    assert done.stderr == "FileNotFoundError: the current folder was removed. Change to another one\n"
