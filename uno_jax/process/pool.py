"""Computes a function of many items in processes that end with the process that started them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from uno_jax.process.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


class PoolError(UserError):
    """Raised if a process of a pool ended."""


def core_count() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(function: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Yields the values of a function for items, in their order.

    A single item is computed here: starting a process takes seconds. At most two items for each process are in memory,
    and the next one is read while the processes work.

    Args:
      function: a picklable function, whose module the processes import.
      items: picklable arguments.
      processes: number of processes; 1 = this one.

    Raises:
      PoolError: a process ended, such as for lack of memory.
      The first exception that the function raises.
    """
    left = iter(items)
    first = list(itertools.islice(left, 2))
    if processes <= 1 or len(first) < 2:
        yield from map(function, first)
        yield from map(function, left)
        return
    pool = _Pool(function, processes)
    try:
        yield from pool.map(itertools.chain(first, left))
    finally:
        pool.close()


class _Pool:
    """Processes that answer one item at a time, each through a pipe that ends with either side."""

    def __init__(self, function: Callable[[Any], Any], processes: int):
        new = multiprocessing.get_context("forkserver")  # libraries of ours have threads, which do not survive a fork
        new.set_forkserver_preload([getattr(function, "__module__", __name__)])
        self._idle: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = new.Pipe()
            process = new.Process(target=_serve, args=(theirs, function), daemon=True)
            process.start()
            theirs.close()
            self._idle.append(ours)
            self._processes.append(process)
        self._most = 2 * processes
        self._busy: dict[Connection, int] = {}

    def map(self, items: Iterator[Any]) -> Iterator[Any]:
        numbered = enumerate(items)
        found: dict[int, Any] = {}
        following = next(numbered, None)
        due = 0
        while following is not None or self._busy or found:
            while following is not None and self._idle and following[0] < due + self._most:
                self._send(*following)
                following = next(numbered, None)
            if due in found:
                yield found.pop(due)
                due += 1
            elif self._busy:
                found.update(self._receive())

    def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _send(self, number: int, item: Any) -> None:
        connection = self._idle.pop()
        try:
            connection.send(item)
        except OSError as error:
            raise _ended() from error
        self._busy[connection] = number

    def _receive(self) -> Iterator[tuple[int, Any]]:
        for connection in wait(list(self._busy)):
            assert isinstance(connection, Connection)
            try:
                succeeded, value = connection.recv()
            except (EOFError, OSError) as error:
                raise _ended() from error
            if not succeeded:
                raise value
            number = self._busy.pop(connection)
            self._idle.append(connection)
            yield number, value


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answers items until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the one that started these ends them
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # so does that of a lost terminal
    while True:
        try:
            item = connection.recv()
            connection.send(_answer(function, item))
        except (EOFError, OSError):
            return


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    try:
        return True, function(item)
    except Exception as error:  # raised where it can be handled
        return False, error


def _ended() -> PoolError:
    return PoolError("a process has ended, perhaps because the memory was full. Lower --processes")
