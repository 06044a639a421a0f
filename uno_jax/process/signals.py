"""SIGTERM and SIGINT (Ctrl-C) where what is going on must not end in its middle.

Each of these contexts takes the first of them; the next acts as it did outside. Python takes signal handlers in the
main thread only: in another one they change nothing, and the caller deals with signals.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that a signal sets."""
    stop = threading.Event()
    with _first_signal(lambda signum: stop.set()):
        yield stop


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """A signal raises SystemExit, of status 143 or 130, so that what it ends can clean up."""
    with _first_signal(lambda signum: sys.exit(128 + signum)):
        yield


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """A signal acts when the block is left.

    For calls that an exception in their middle leaves in disorder: Orbax's threads go on after it, make again what was
    cleaned up, and report to an event loop that is no more.
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

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
