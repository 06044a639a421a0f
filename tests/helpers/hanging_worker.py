"""A program whose second data worker hangs, watched: it ends by itself after the limit in seconds that it is given."""

from __future__ import annotations

import sys
import threading
from typing import Any

from uno_jax.data.workers import WorkerBatches
from uno_jax.process.watchdog import Watchdog


class Batches:
    """Batches of the first part are none, and those of the second never come."""

    def __init__(self, part: int):
        self._part = part

    def __next__(self) -> Any:
        if self._part == 1:
            wait_for_ever()
        raise StopIteration

    def get_state(self) -> dict[str, Any]:
        return {}


def wait_for_ever() -> None:
    threading.Event().wait()


def make(part: int, of: int) -> Batches:
    return Batches(part)


if __name__ == "__main__":
    batches = WorkerBatches(make, range(2), 2)
    print("processes", *(process.pid for process in batches._processes), flush=True)
    with Watchdog(float(sys.argv[1]), detail=batches.awaited) as watchdog:
        watchdog.awaits("the batch of step 7")
        next(batches)
