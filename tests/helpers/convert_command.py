"""Runs the command `uno_jax.convert` in this process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from uno_jax import convert


def succeed(*arguments: str | Path) -> str:
    """Runs the command and returns its output."""
    console = Console(file=io.StringIO(), width=120)
    convert.main([str(argument) for argument in arguments], console)
    return console.file.getvalue()


def fail(*arguments: str | Path) -> str:
    """Runs the command, requires it to fail, and returns its error message."""
    with pytest.raises(SystemExit) as exit:
        succeed(*arguments)
    assert isinstance(exit.value.code, str)
    return exit.value.code
