"""A block whose end replaces its exception, as an interrupted wait for a lock does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def released_twice() -> Iterator[None]:
    """Ends with the RuntimeError of a lock, whatever the block raises."""
    try:
        yield
    finally:
        threading.Lock().release()
