"""Output directories appear complete or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.convert_command import fail, succeed
from tests.helpers.paths import REFERENCE, ROOT
from tests.helpers.small_public import write_public
from uno_jax.interop.output import new_directory
from uno_jax.process.errors import CheckpointError


def make(path: Path, source: Path, *, overwrite: bool = False) -> None:
    with new_directory(path, source, overwrite=overwrite) as partial:
        partial.mkdir()
        (partial / "new").touch()


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def old(tmp_path) -> Path:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious").touch()
    return tmp_path / "old"


def fail_at(path: Path, beside: str, error: type[BaseException]) -> None:
    """Creates the temporary directories of Orbax, and fails."""
    with new_directory(path, path.parent / "source") as partial:
        for name in (partial.name, f"{partial.name}{beside}"):
            (partial.parent / name / "params").mkdir(parents=True)
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_removes_temporary_directories_and_new_parents(tmp_path, error):
    with pytest.raises(error):
        fail_at(tmp_path / "a" / "b" / "new", ".orbax-checkpoint-tmp", error)
    assert names(tmp_path) == []


def test_a_failure_keeps_the_directories_of_another_process(tmp_path):
    with pytest.raises(ValueError, match="^$"):
        fail_at(tmp_path / "new", "0", ValueError)
    assert [path.name for path in tmp_path.iterdir()] == [f".new.partial-{os.getpid()}0"]


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path, old):
    (tmp_path / "link").symlink_to(old)
    make(tmp_path / "link", tmp_path / "source", overwrite=True)
    assert names(tmp_path) == ["link", "old", "old/new"]
    assert (tmp_path / "link").readlink() == old


def test_the_missing_target_of_a_link_is_created(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    make(tmp_path / "link", tmp_path / "source")
    assert names(tmp_path) == ["link", "nothing", "nothing/new"]


@pytest.mark.parametrize(("path", "source"), [("old", "old"), ("old", "old/public"), ("old", "."), ("link", "old")])
def test_the_source_is_not_replaced(tmp_path, old, path, source):
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(CheckpointError, match="would destroy the source .*; choose another path"):
        make(tmp_path / path, tmp_path / source, overwrite=True)
    assert names(tmp_path) == ["link", "old", "old/precious"]


def test_import_and_export_do_not_replace_their_sources(tmp_path):
    source = write_public(tmp_path / "public")
    assert "would destroy the source" in fail("import", source, source, "--overwrite")
    succeed("import", source, tmp_path / "imported")
    assert "would destroy the source" in fail("export", tmp_path / "imported", tmp_path / "imported", "--overwrite")


# It receives SIGTERM when it begins to delete the replaced directory.
TERMINATED_WHILE_REPLACING = """
import signal, sys
from pathlib import Path
from uno_jax.interop.output import new_directory
from uno_jax.process.signals import exit_on_signals

def hook(event, arguments):
    if event == "shutil.rmtree" and ".old-" in str(arguments[0]):
        signal.raise_signal(signal.SIGTERM)

sys.addaudithook(hook)
with exit_on_signals(), new_directory(sys.argv[1], "source", overwrite=True) as partial:
    partial.mkdir()
    (partial / "new").touch()
"""


def test_a_signal_during_replacement_waits_until_the_old_directory_is_deleted(tmp_path, old):
    command = [sys.executable, "-c", TERMINATED_WHILE_REPLACING, str(old)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 128 + signal.SIGTERM
    assert names(tmp_path) == ["old", "old/new"]


# The command in a process

# A maximum file size of 100 kB stands for a full disk.
LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
runpy.run_module("uno_jax.convert", run_name="__main__")
"""


def test_a_failed_write_of_an_import_is_one_line_and_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-c", LIMITED, "import", str(REFERENCE), str(tmp_path / "new" / "imported")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    message = f"CheckpointError: {tmp_path}/new: writing the checkpoint failed (File too large)\n"
    assert (result.returncode, result.stderr) == (1, message)
    assert names(tmp_path) == []


def test_a_failed_write_of_an_export_names_the_file_and_leaves_nothing_behind(tmp_path):
    succeed("import", REFERENCE, tmp_path / "imported")
    command = [sys.executable, "-c", LIMITED, "export", str(tmp_path / "imported"), str(tmp_path / "new" / "exported")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "File too large: " in result.stderr
    assert "ema.safetensors" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seconds", [0, 0.1, 0.25])
def test_a_terminated_import_is_complete_or_leaves_nothing_behind(tmp_path, seconds):
    command = [sys.executable, "-m", "uno_jax.convert", "import", str(REFERENCE), str(tmp_path / "imported")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(tmp_path.iterdir()):
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert errors == ""
    # At exit, Python may already have restored its default handlers.
    complete = [(status, ["imported"]) for status in (0, 128 + signal.SIGTERM, -signal.SIGTERM)]
    assert (process.returncode, [path.name for path in tmp_path.iterdir()]) in [(128 + signal.SIGTERM, []), *complete]
