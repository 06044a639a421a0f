"""Contexts that handle SIGTERM and SIGINT (Ctrl-C) where work must not be interrupted halfway.

Each context handles the first signal. The next one acts as it did outside. Python only allows signal handlers in the
main thread, so in other threads the contexts do nothing.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uno_jax.process.interrupts import raise_interrupts


@contextlib.contextmanager
def stop_event() -> Iterator[threading.Event]:
    """Yields an event that a signal sets."""
    stop = threading.Event()
    with _first_signal(lambda signum: stop.set()):
        yield stop


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turns a signal into SystemExit with status 143 or 130, so that the interrupted code can clean up.

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


@contextlib.contextmanager
def _first_signal(act: Callable[[int], None]) -> Iterator[None]:
    previous: dict[int, Any] = {}

    def handle(signum: int, frame: Any) -> None:
        restore()
        act(signum)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    raise_interrupts()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
