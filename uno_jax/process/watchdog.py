"""Ends a process that hangs, with the stacks of its threads, so that a launcher can start it again."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

EXIT_STATUS = 75
"""Exit status of a process that hung (EX_TEMPFAIL). Launchers start it again, and count a failure."""

_STDERR = 2  # the file, whatever sys.stderr is
# The C timer of faulthandler, which needs no Python thread, ends the process after so many times the limit.
_WITHOUT_PYTHON = 2.0
_SHARED = 1.2


class Watchdog:
    """Ends the process if what it awaits takes longer than a limit. As a context, it ends its thread.

    Every call of `awaits` is progress. Time during which the whole process was stopped (Ctrl-Z) does not count.
    """

    def __init__(
        self,
        seconds: float,
        *,
        log: Path | None = None,
        detail: Callable[[], str] = lambda: "",
        tell: Callable[[str], None] = lambda message: None,
    ):
        """Starts watching at the first call of `awaits`.

        Args:
          seconds: the limit; 0 = the process is never ended.
          log: file to which the stacks are appended, in addition to stderr.
          detail: says more about what is awaited, and may make other processes print their stacks.
          tell: passes the message on, for example to other hosts.
        """
        self._seconds, self._log, self._detail, self._tell = seconds, log, detail, tell
        self._what, self._limit, self._due = "", seconds, float("inf")
        self._armed, self._armed_for = float("-inf"), 0.0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def awaits(self, what: str, *, at_least: float = 0.0, shared: bool = False) -> None:
        """Says what the process waits for from now on, for example `step 7`.

        `at_least` is the limit in seconds if it is longer, for example because something is compiled. The limit of what
        is `shared` with other hosts is longer by a fifth, so that the host on which the cause is ends first.
        """
        if not self._seconds:
            return
        limit, now = max(self._seconds * (_SHARED if shared else 1), at_least), time.monotonic()
        self._what, self._limit, self._due = what, limit, now + limit
        # Starting the timer starts a thread, so it is not done at every step.
        if now - self._armed > self._seconds / 10 or limit > self._armed_for:
            faulthandler.dump_traceback_later(_WITHOUT_PYTHON * limit, exit=True, file=_STDERR)
            self._armed, self._armed_for = now, limit
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        if self._thread is not None:
            faulthandler.cancel_dump_traceback_later()
            self._thread.join()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _watch(self) -> None:
        pause = min(self._seconds / 20, 5.0)
        while True:
            before = time.monotonic()
            if self._closed.wait(pause):
                return
            now = time.monotonic()
            if now - before > 2 * pause + 1:  # this thread did not run either
                self._due += now - before
            if now > self._due:
                self._end()

    def _end(self) -> None:
        """Reports, and ends the process and those it started. A report that hangs itself does not delay the end."""
        faulthandler.dump_traceback_later(20, exit=True, file=_STDERR)
        detail = self._detail()
        message = f"nothing happened for {self._limit:g} s while waiting for {self._what}{detail and f' ({detail})'}"
        print(f"{message}. Ending the process; the stacks of its threads follow.", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        with contextlib.suppress(Exception):
            self._tell(message)
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(EXIT_STATUS)
