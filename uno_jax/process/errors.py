"""User errors, and how a command exits with one of them."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from uno_jax.process.interrupts import raise_interrupts
from uno_jax.process.output import check_output

_MAX_LINES = 20


class UserError(ValueError):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""


class CheckpointError(UserError):
    """Raised for a checkpoint that cannot be read as the expected model."""


class CheckpointMismatch(CheckpointError):
    """Raised for a checkpoint of another model. The message names tensors that differ."""


@functools.cache
def say(message: str) -> None:
    """Prints a message to stderr, once per process."""
    print(message, file=sys.stderr)


def user_message(error: BaseException) -> str | None:
    """Returns the message of an error that the user can fix, beginning with its kind; None for any other error.

    These are `UserError`, `OSError` (files), `FloatingPointError` (a non-finite loss), and a lack of memory or devices.
    """
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_current_folder():
        return "FileNotFoundError: the current folder was removed. Change to another one"
    if isinstance(error, (UserError, OSError, FloatingPointError)):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # of the host, or of a device
        reason = (str(error) or "the host has no more").splitlines()[0]
        return f"MemoryError: not enough memory ({reason}). Use smaller batches, pictures or texts, or more devices"
    return _no_device(error)


def _no_device(error: BaseException) -> str | None:
    """Says that JAX found none of the devices that it was to use; None for any other error."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    advice = f"Unset JAX_PLATFORMS, which is {chosen!r}, or install JAX for it" if chosen else "See docs/install.md"
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        return f"DeviceError: {reason_of(error).partition(' (set JAX_PLATFORMS')[0].rstrip('.')}. {advice}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    if isinstance(error, AssertionError) and last and last[0].name == "backends":  # jax._src.xla_bridge
        return f"DeviceError: JAX found no device. {advice}"
    return None


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def reason_of(error: Exception) -> str:
    """Returns the first line of what a library says, or the kind of its error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def raised_in(error: BaseException, file: str | Path) -> str | None:
    """Says what a user's file raised, and in which line; None if the error has not passed through the file."""
    path = Path(file).resolve()
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename).resolve() == path]
    if not lines:
        return None
    text = " ".join(str(error).split())
    return f"{file}:{lines[-1]} raised {type(error).__name__}{f': {text}' if text else ''}"


@contextlib.contextmanager
def exit_with_message(status: int = 1) -> Iterator[None]:
    """Exits the process on an error that the user can fix (`user_message`), with its message and without a traceback.

    Raises:
      SystemExit: on such an error. Its code is `status`; for status 1 it is the message, which Python prints. With
        code 130 on Ctrl-C. As in `check_output` if the standard output cannot be written.
    """
    raise_interrupts()
    try:
        yield
        check_output()
    except (KeyboardInterrupt, Exception) as error:
        if _is_interrupt(error):
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, OSError) and error.filename is None:
            check_output()  # perhaps it is what failed
        message = user_message(error)
        if message is None:
            raise
        if status == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(status)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause. A lock that was waited for raises RuntimeError in place of KeyboardInterrupt."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__context__))


def lines_of(problems: Sequence[str]) -> str:
    """Formats the end of a message: one line per problem, at most 20, and the number of further ones."""
    more = len(problems) - _MAX_LINES
    return "".join(f"\n  {line}" for line in [*problems[:_MAX_LINES], *([f"and {more} more"] if more > 0 else [])])
