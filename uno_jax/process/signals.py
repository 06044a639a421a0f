"""Contexts that handle SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a lost terminal) where work must not be cut off halfway.

Each context handles the first signal. The next one acts as it did outside. Python only allows signal handlers in the
main thread, so in other threads the contexts do nothing. SIGHUP stays ignored where it is (`nohup`).
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from uno_jax.process.interrupts import raise_interrupts

REPEAT_SECONDS = 5.0
"""Seconds after a signal to stop during which others change nothing: many senders repeat it at once."""

_stopped_by: list[int] = []


@contextlib.contextmanager
def stop_event(repeats: float = REPEAT_SECONDS) -> Iterator[threading.Event]:
    """Yields an event that a signal sets. Further signals are ignored for some seconds (`repeats`)."""
    stop, since = threading.Event(), -math.inf

    def handle(signum: int, restore: Callable[[], None]) -> None:
        nonlocal since
        if not stop.is_set():
            since = time.monotonic()
            _stopped_by[:] = [signum]
            stop.set()
        elif time.monotonic() - since >= repeats:
            restore()
            signal.raise_signal(signum)

    with _handled(handle):
        yield stop


def exit_status() -> int:
    """Returns the exit status of a process that the last signal of a `stop_event` ended.

    It is that of SIGTERM if there was none, as on a host that stops because of a signal to another one.
    """
    return 128 + (_stopped_by or [signal.SIGTERM])[0]


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turns a signal into SystemExit with status 143, 130 or 129, so that the interrupted code can clean up.

    Code that was halfway through an operation may replace that SystemExit: a lock of `threading` that was waited for
    raises RuntimeError. Whatever leaves the block after a signal, the status is that of the signal.
    """
    status: list[int] = []

    def stop(signum: int) -> None:
        if signum == signal.SIGINT:
            print("interrupted", file=sys.stderr)
        status.append(128 + signum)
        sys.exit(status[0])

    with _first_signal(stop), _raised_again(lambda: sys.exit(status[0])):
        try:
            yield
        except BaseException:
            if status:
                sys.exit(status[0])
            raise


@contextlib.contextmanager
def _raised_again(leave: Callable[[], None]) -> Iterator[None]:
    """Leaves again after a SystemExit that Python ignored, because it was raised in a finaliser or another callback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, alarm = sys.unraisablehook, signal.signal(signal.SIGALRM, lambda signum, frame: leave())

    def ignored(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, SystemExit):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            hook(unraisable)

    sys.unraisablehook = ignored
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        signal.signal(signal.SIGALRM, alarm)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delays a signal until the end of the block.

    Protects calls that do not tolerate an exception halfway: Orbax's threads would continue after it, recreate files
    that were cleaned up, and report to an event loop that no longer exists.
    """
    held: list[int] = []
    try:
        with _first_signal(held.append):
            yield
    finally:
        for signum in held:
            signal.raise_signal(signum)


def _first_signal(act: Callable[[int], None]) -> contextlib.AbstractContextManager[None]:
    def handle(signum: int, restore: Callable[[], None]) -> None:
        restore()
        act(signum)

    return _handled(handle)


@contextlib.contextmanager
def _handled(handle: Callable[[int, Callable[[], None]], None]) -> Iterator[None]:
    """Calls a function with each signal, and with a function that restores the handlers outside."""
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    raise_interrupts()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, lambda signum, frame: handle(signum, restore))
    try:
        yield
    finally:
        restore()
