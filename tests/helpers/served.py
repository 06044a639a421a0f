"""Serves a small model over HTTP, in a thread of the test process."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from tests.helpers.small_loaded import QUICK_SETTINGS, small_generator
from uno_jax.inference.generate import Generator
from uno_jax.sampling.text import TextConfig
from uno_jax.serving.app import make_app
from uno_jax.serving.server import Server

TEXT = TextConfig(max_length=7)


@contextlib.contextmanager
def served(generator: Generator | None = None, **changes: Any) -> Iterator[str]:
    """Yields the address of a server of a generator, the small one by default, with quick settings."""
    fields = {"name": "small", "settings": QUICK_SETTINGS, "text": TEXT} | changes
    app = make_app(Server(generator or small_generator(), **fields))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=10))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def wait_for(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until `found` returns something, and returns it."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"not there after {seconds} s"
        time.sleep(0.02)
    return result


@dataclasses.dataclass(frozen=True)
class Held(Generator):
    """Draws nothing until `proceed` is set, and notes the prompts of each batch when it begins."""

    batches_begun: list[list[Any]] = dataclasses.field(default_factory=list)
    proceed: threading.Event = dataclasses.field(default_factory=threading.Event)

    def generate(self, requests, batch_size=1):
        self.batches_begun.append([request.context[-1] for request in requests])
        self.proceed.wait(60)
        yield from super().generate(requests, batch_size)


def held() -> Held:
    return Held(small_generator().reader)
