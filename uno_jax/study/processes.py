"""Several processes that share the units of a study, and the cores of the machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from uno_jax.process.signals import stop_event


def run_beside(function: Callable[..., None], arguments: Sequence[object], count: int) -> bool:
    """Calls `function` in `count` new processes, each on its share of the cores, and waits for all of them.

    A signal, or the failure of one process, stops the others by SIGTERM.

    Args:
      function: a function of a module, which exits with status 143 if a signal stopped it.
      arguments: its arguments, which must be picklable.
      count: number of processes.

    Returns:
      Whether all of them finished.

    Raises:
      SystemExit: one failed. It has printed why.
    """
    new = multiprocessing.get_context("spawn")  # JAX does not survive a fork
    cores = sorted(os.sched_getaffinity(0))
    processes = [new.Process(target=function, args=tuple(arguments)) for _ in range(count)]
    with stop_event() as stop:
        for number, process in enumerate(processes):
            with _on_cores(cores[number % len(cores) :: count]):
                process.start()
        while any(process.is_alive() for process in processes):
            stop.wait(0.5)
            if stop.is_set() or any(process.exitcode for process in processes):
                for process in processes:
                    if process.is_alive():
                        process.terminate()
                for process in processes:
                    process.join()
    if any(process.exitcode not in (0, 128 + 15) for process in processes):
        sys.exit(1)
    return not any(process.exitcode for process in processes)


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Starts processes on some cores only. XLA has as many threads as a process has cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
