"""Runs the command `uno_jax.convert` in this process."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import error_of, output_of
from uno_jax import convert


def succeed(*arguments: str | Path) -> str:
    """Runs the command and returns its output."""
    return output_of(convert.main, arguments, width=120)


def fail(*arguments: str | Path) -> str:
    """Runs the command, requires it to fail, and returns its error message."""
    return error_of(convert.main, arguments)
