"""User errors, and how a command exits with one of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

_MAX_LINES = 20


class UserError(ValueError):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""


class CheckpointError(UserError):
    """Raised for a checkpoint that cannot be read as the expected model."""


class CheckpointMismatch(CheckpointError):
    """Raised for a checkpoint of another model. The message names tensors that differ."""


@contextlib.contextmanager
def exit_with_message(status: int = 1) -> Iterator[None]:
    """Exits the process on a user error, with its message and without a traceback.

    User errors are `UserError`, `OSError` (files), and `FloatingPointError` (a non-finite loss).

    Raises:
      SystemExit: on a user error. Its code is `status`; for status 1 it is the message, which Python prints.
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
    """Formats the end of a message: one line per problem, at most 20, and the number of further ones."""
    more = len(problems) - _MAX_LINES
    return "".join(f"\n  {line}" for line in [*problems[:_MAX_LINES], *([f"and {more} more"] if more > 0 else [])])
