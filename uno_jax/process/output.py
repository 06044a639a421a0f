"""Standard output that is missing, whose reader has left, or that is on a full disk."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

READER_LEFT = 128 + 13
"""Exit status of a process that SIGPIPE ended, which shells expect before `| head`."""


def check_output() -> None:
    """Writes what standard output still holds. Where that fails, ends the process, without a traceback.

    Raises:
      SystemExit: with status `READER_LEFT` if nobody reads the output, as after `| head -1`; else with a message.
    """
    if sys.stdout is None or sys.stdout.closed or isinstance(sys.stdout, _Lenient):
        return
    try:
        sys.stdout.flush()
        if _reader_left():  # what could not be written is not kept if Python runs with -u
            raise BrokenPipeError
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            sys.exit(READER_LEFT)
        sys.exit(f"{type(error).__name__}: the standard output cannot be written ({error.strerror or error})")


def open_missing_streams() -> None:
    """Gives a process that was started without standard streams, as with `>&- <&-`, an empty input and unread outputs.

    Otherwise the next file that is opened takes the number of the missing one, and gets what libraries print there.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def going_on_without_output() -> Iterator[None]:
    """Lets a long command go on if its output is lost: the reader of a pipe has left, or the disk of a log is full.

    What cannot be written is lost. One line for each stream says so, where that can be written.
    """
    output, errors = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Lenient(output, "output"))
    sys.stderr = cast(TextIO, _Lenient(errors, "error"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = output, errors
        for stream in (output, errors):
            try:
                stream.flush()
            except OSError:
                _discard(stream)


class _Lenient:
    """A text stream whose writes do not fail."""

    def __init__(self, stream: Any, name: str):
        self._stream = stream
        self._name = name
        self._said = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._going_on():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._going_on():
            self._stream.flush()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._said:
                self._said = True
                reason = error.strerror or error
                print(f"warning: the standard {self._name} cannot be written ({reason}). Going on", file=sys.stderr)


def _reader_left() -> bool:
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such system call, or a stream without a file
        return False


def _discard(stream: Any) -> None:
    """Lets nothing more be written to a stream, because Python tries again at its end, and prints a traceback."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
