"""Runs coroutines in a command, which a signal ends at once and between their steps."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from uno_jax.process.signals import signals_held

T = TypeVar("T")


def run_coroutine(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end and returns its result. An exception in the main thread cancels it.

    Its event loop is in another thread: Python raises the exception of a signal handler in the main thread, where it
    would interrupt a step of any coroutine halfway, also in libraries that do not expect it.
    """
    loop, ended = asyncio.new_event_loop(), threading.Event()
    task = loop.create_task(main)
    thread = threading.Thread(target=_run, args=(loop, task, ended), daemon=True)
    try:
        with signals_held():  # a thread that is known to have started
            thread.start()
        ended.wait()  # and not `join`, which an exception leaves in disorder
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(task.cancel)
        ended.wait()
        raise
    return task.result()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], ended: threading.Event) -> None:
    try:
        with contextlib.suppress(BaseException):  # the task has it
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        ended.set()
