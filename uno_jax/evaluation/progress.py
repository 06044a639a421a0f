"""Says how long a job takes, from the batches that are done."""

from __future__ import annotations

import time

from rich.console import Console


class Progress:
    """Prints the time of the first batch, and later the time per item and the time left."""

    def __init__(self, console: Console, total: int, unit: str, *, compiles: bool = True):
        """Starts the clock of the first batch.

        Args:
          console: receives the lines.
          total: number of items.
          unit: what an item is called.
          compiles: whether the first batch compiles a program.
        """
        self._compiles = compiles
        self._console, self._total, self._unit = console, total, unit
        self._batches = self._done = self._first = 0
        self._started = time.monotonic()

    def add(self, items: int) -> None:
        """Counts a batch."""
        now = time.monotonic()
        self._done += items
        self._batches += 1
        if self._batches == 1:
            took = now - self._started
            left = took / items * (self._total - self._done)
            compiled = ", with compilation" if self._compiles else ""
            more = f"; {_duration(left)} left at this pace" if left else ""
            self._say(f"the first batch of {items} took {took:.1f} s{compiled}{more}")
            self._started, self._first = now, items
            return
        # Often at first, then less and less: after 2, 3, 5, 9 .. batches.
        number, left = self._batches - 1, self._total - self._done
        if number & (number - 1) == 0 or not left:
            each = (now - self._started) / (self._done - self._first)
            shown = f"{self._done:,} of {self._total:,}: {each:.2f} s a {self._unit}, {_duration(each * left)} left"
            self._say(shown)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
