"""How a command exits with an error."""

from __future__ import annotations

import pytest

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
