"""An HTTP server in OpenAI's format that answers as a test says: well, badly, late, or not at all."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

MODEL = "stated-model"


class Reply(NamedTuple):
    """What the server sends."""

    status: int = 200
    body: bytes = b""
    cut: int = 0
    """Bytes that the body lacks of its announced length."""
    seconds: float = 0.0
    """Time before it."""
    kind: str = "application/json"


def says(text: str | None, *, end: str = "stop", **message: Any) -> Reply:
    """A reply in OpenAI's format, with the reason of its end and more fields of the message."""
    message = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": message, "finish_reason": end}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return Reply(body=json.dumps({**body, "system_fingerprint": "v7"}).encode())


NOT_FOUND = Reply(404, b'{"detail": "Not Found"}')
"""What a server replies to a path that it does not know."""


class Served(NamedTuple):
    """A running server."""

    url: str
    requests: list[dict[str, Any]]
    """Bodies of the requests so far."""
    keys: list[str]
    """Their keys."""


@contextlib.contextmanager
def judge_server(answer: Callable[[str, int], Reply]) -> Iterator[Served]:
    """Serves replies by the text of a question and the number of times that it was asked before."""
    requests: list[dict[str, Any]] = []
    keys: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client may have been killed
                super().handle()

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            content = self.rfile.read(size)
            if len(content) < size:  # likewise
                self.close_connection = True
                return
            body = json.loads(content)
            text = body["messages"][0]["content"][0]["text"]
            with lock:
                before = sum(each["messages"][0]["content"][0]["text"] == text for each in requests)
                requests.append(body)
                keys.append(self.headers["Authorization"])
            self._send(answer(text, before) if self.path == "/v1/chat/completions" else NOT_FOUND)

        def _send(self, reply: Reply) -> None:
            stopped.wait(reply.seconds)
            with contextlib.suppress(OSError):  # the client may have left
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.body) + reply.cut))
                self.send_header("retry-after-ms", "10")
                self.end_headers()
                self.wfile.write(reply.body)
            self.close_connection = bool(reply.cut)

        def log_message(self, *args: Any) -> None:
            pass

    stopped = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}/v1", requests, keys)
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
