"""A host that no longer counts is silent. The store is a dictionary; tests/parallel/hosts_test.py uses JAX's."""

from __future__ import annotations

from uno_jax.parallel.heartbeats import Heartbeats


class Store(dict[str, str]):
    """The methods of JAX's key-value store that heartbeats use."""

    def key_value_set(self, key: str, value: str, *, allow_overwrite: bool) -> None:
        assert allow_overwrite or key not in self
        self[key] = value

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.items() if key.startswith(prefix)]


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_host_is_silent_once_its_count_has_not_changed_for_so_long():
    store, clock = Store(), Clock()
    hosts = [Heartbeats(store, host, 3, clock) for host in range(3)]
    silent = {}
    for clock.seconds in range(1, 8):
        for host in hosts if clock.seconds <= 3 else hosts[:2]:
            host.beat()
        silent[clock.seconds] = hosts[0].silent(3)
    assert silent == {1: [], 2: [], 3: [], 4: [], 5: [], 6: [2], 7: [2]}


def test_a_host_that_never_counted_is_silent_too():
    clock = Clock()
    first = Heartbeats(Store(), 0, 2, clock)
    assert first.silent(3) == []
    clock.seconds = 3.0
    assert first.silent(3) == [1]


def test_hosts_are_told_apart_beyond_ten():
    store, clock = Store(), Clock()
    first, twelfth = Heartbeats(store, 0, 12, clock), Heartbeats(store, 11, 12, clock)
    clock.seconds = 5.0
    twelfth.beat()
    assert first.silent(5) == list(range(1, 11))
