"""Errors that a person can act on, and how a command ends with one of them; the messages are for people."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

_MOST_LINES = 20


class UserError(ValueError):
    """An error that the person who gave a command can put right: the message says what is wrong, where, and how."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read as the model it should hold."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint of another model; the message names tensors that differ."""


@contextlib.contextmanager
def exit_with_message(status: int = 1) -> Iterator[None]:
    """Ends the process with the message of an error and without a traceback, if a person can act on that error.

    Besides `UserError` these are what the system says of files (OSError), and a loss that is not finite.

    Raises:
      SystemExit: in place of such an error; its code is `status`, or the message, which Python takes for status 1.
    """
    try:
        yield
    except (UserError, OSError, FloatingPointError) as error:
        message = f"{type(error).__name__}: {error}"
        if status == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(status)


def lines_of(problems: Sequence[str]) -> str:
    """The end of a message: a line for each problem, or for the first 20 of them and how many more there are."""
    more = len(problems) - _MOST_LINES
    return "".join(f"\n  {line}" for line in [*problems[:_MOST_LINES], *([f"and {more} more"] if more > 0 else [])])
