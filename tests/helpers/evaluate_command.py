"""Runs of the command `evaluate` in this process."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import error_of, output_of
from tests.helpers.small_loaded import QUICK
from uno_jax import evaluate

QUICK_FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]


def succeed(*arguments: str | Path) -> str:
    """Returns the output of the command."""
    return output_of(evaluate.main, arguments, width=300)


def fail(*arguments: str | Path) -> str:
    """Returns the error message of the command."""
    return error_of(evaluate.main, arguments)
