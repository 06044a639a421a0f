"""How a command exits with an error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.released_lock import released_twice
from uno_jax.config import ConfigError
from uno_jax.process.errors import CheckpointMismatch, UserError, exit_with_message


@pytest.mark.parametrize("error", [UserError, ConfigError, CheckpointMismatch, FileNotFoundError, FloatingPointError])
def test_a_user_error_exits_with_its_message(error):
    with pytest.raises(SystemExit) as exit, exit_with_message():
        raise error("data: there is no such directory")
    assert exit.value.code == f"{error.__name__}: data: there is no such directory"


def test_a_user_error_can_exit_with_another_status(capsys):
    with pytest.raises(SystemExit) as exit, exit_with_message(2):
        raise ConfigError("config.steps is 0")
    assert exit.value.code == 2
    assert capsys.readouterr().err == "ConfigError: config.steps is 0\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="shapes"), exit_with_message():
        raise ValueError("shapes do not match")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nStack"),
            "Out of memory allocating 9 bytes.",
        ),
        (MemoryError(), "the host has no more"),
    ],
)
def test_a_lack_of_memory_exits_with_one_line(error, message):
    with pytest.raises(SystemExit) as exit, exit_with_message():
        raise error
    assert exit.value.code.startswith("MemoryError: not enough memory (")
    assert message in exit.value.code
    assert "\n" not in exit.value.code


FIND_DEVICES = """
import jax
from uno_jax.process.errors import exit_with_message
with exit_with_message():
    jax.devices()
"""


@pytest.mark.parametrize("platform", ["nonsense", "rocm"])  # neither known to JAX nor installed; known
def test_a_platform_that_is_not_there_is_one_line(platform):
    environment = os.environ | {"JAX_PLATFORMS": platform}
    ended = subprocess.run(
        [sys.executable, "-c", FIND_DEVICES], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    [*_, last] = ended.stderr.splitlines()
    assert last.startswith("DeviceError: ")
    assert last.endswith(f"Unset JAX_PLATFORMS, which is '{platform}', or install JAX for it")
    assert "Traceback" not in ended.stderr


def test_an_interrupt_exits_with_one_line_and_the_status_of_a_shell(capsys):
    with pytest.raises(SystemExit) as exit, exit_with_message():
        raise KeyboardInterrupt
    assert exit.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_that_a_lock_replaced_by_its_own_error_exits_like_any_other(capsys):
    with pytest.raises(SystemExit) as exit, exit_with_message(), released_twice():
        raise KeyboardInterrupt
    assert exit.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
