"""Which hosts still answer: each counts in the key-value store that joined hosts share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_BEATS = "uno_jax/beats/"


class Heartbeats:
    """Counts of this host, and those of all hosts. One thread may call its methods at a time."""

    def __init__(self, store: Any, host: int, hosts: int, now: Callable[[], float] = time.monotonic):
        """`store` is JAX's key-value store. `now` returns the time in seconds."""
        self._store, self._host, self._hosts, self._now = store, host, hosts, now
        self._count = 0
        start = now()
        self._seen = {other: ("", start) for other in range(hosts) if other != host}

    def beat(self) -> None:
        """Shows the other hosts that this one answers."""
        self._count += 1
        self._store.key_value_set(f"{_BEATS}{self._host}", str(self._count), allow_overwrite=True)

    def silent(self, seconds: float) -> list[int]:
        """Returns the hosts whose count has not changed for so long, as far as calls of this method have seen."""
        now = self._now()
        counts = {int(key.rpartition("/")[2]): count for key, count in self._store.key_value_dir_get(_BEATS)}
        for host, (before, _) in self._seen.items():
            if (count := counts.get(host, "")) != before:
                self._seen[host] = (count, now)
        return [host for host, (_, changed) in self._seen.items() if now - changed >= seconds]
