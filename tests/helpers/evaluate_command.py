"""Runs of the command `evaluate` in this process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.small_loaded import QUICK
from uno_jax import evaluate

QUICK_FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]


def succeed(*arguments: str | Path) -> str:
    """Returns the output of the command."""
    console = Console(file=io.StringIO(), width=300)
    evaluate.main([str(argument) for argument in arguments], console)
    return console.file.getvalue()


def fail(*arguments: str | Path) -> str:
    """Returns the error message of the command."""
    with pytest.raises(SystemExit) as exit:
        succeed(*arguments)
    assert isinstance(exit.value.code, str)
    return exit.value.code
