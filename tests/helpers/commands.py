"""Commands that run in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

Main = Callable[[Sequence[str], Console], None]


def output_of(main: Main, arguments: Sequence[str | Path], width: int = 200) -> str:
    """Returns the output of a command on a console of `width` characters."""
    console = Console(file=io.StringIO(), width=width)
    main([str(argument) for argument in arguments], console)
    return console.file.getvalue()


def error_of(main: Main, arguments: Sequence[str | Path]) -> str:
    """Requires a command to fail, and returns its error message."""
    with pytest.raises(SystemExit) as exit:
        output_of(main, arguments)
    assert isinstance(exit.value.code, str)
    return exit.value.code
