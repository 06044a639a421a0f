"""Ctrl-C while a command imports its libraries, which takes seconds.

An exception there would be a traceback, or be lost in a callback of a library. Nothing has been done yet, so the
process ends at once. Later, code that cleans up gets a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any


def end_at_interrupts() -> None:
    """Lets Ctrl-C end the process with one line and status 130, until `raise_interrupts`."""
    if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again."""
    if _in_main_thread() and signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(signum: int, frame: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + signum)
