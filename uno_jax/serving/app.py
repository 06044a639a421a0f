"""The HTTP application: its endpoints, and what all of them have in common."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uno_jax.inference.generate import GeneratedImage
from uno_jax.serving.bodies import read_body, read_form
from uno_jax.serving.chats import ChatOrder, read_chat
from uno_jax.serving.fields import check_model
from uno_jax.serving.jobs import Answered, Piece
from uno_jax.serving.metrics import Counts
from uno_jax.serving.pictures import PictureOrder, read_edit, read_generation
from uno_jax.serving.refusals import ClientGone, Refusal, program_failed, refusal_of
from uno_jax.serving.replies import (
    DONE,
    chat_chunk,
    chat_reply,
    model_reply,
    models_reply,
    pictures_reply,
    server_event,
    usage_chunk,
)
from uno_jax.serving.results import Waiting, events_of, results_of, submit, too_late
from uno_jax.serving.server import Server
from uno_jax.serving.worker import run_jobs

Handler = Callable[[Server, HttpRequest, float], Awaitable[Response]]
"""Replies to a request, until a deadline in the time of the event loop."""


def make_app(server: Server) -> FastAPI:
    """Builds the application. While it runs, a thread runs the model."""
    worker = threading.Thread(
        target=run_jobs,
        args=(server.queue, server.generator, server.counts),
        kwargs={"most": server.limits.batch, "wait": server.limits.batch_wait},
        name="model",
        daemon=True,
    )

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        server.queue.close()
        await run_in_threadpool(worker.join)

    app = FastAPI(title="uno_jax", lifespan=running, openapi_url=None)
    app.state.worker = worker
    for path, method, handler in ENDPOINTS:
        app.add_api_route(path, _endpoint(handler, server, open_to_all=path == "/health"), methods=[method])
    app.add_exception_handler(HTTPException, _other_error)
    app.add_exception_handler(Exception, _program_error)
    app.add_middleware(_Counted, counts=server.counts)
    return app


async def generate_pictures(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Draws pictures from a text."""
    body = await read_body(request, "application/json")
    order = await run_in_threadpool(read_generation, body, server)
    return await _pictures(order, server, request, deadline)


async def edit_pictures(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Draws edits of pictures."""
    texts, files = await read_form(request, ("image", "image[]"))
    order = await run_in_threadpool(read_edit, texts, files, server)
    return await _pictures(order, server, request, deadline)


async def _pictures(order: PictureOrder, server: Server, request: HttpRequest, deadline: float) -> Response:
    results = await results_of(submit(order.requests, server), request, deadline)
    pictures = [result for result in results if isinstance(result, GeneratedImage)]
    created = int(time.time())
    reply = await run_in_threadpool(pictures_reply, pictures, order.requests, created, as_url=order.as_url)
    return JSONResponse(reply)


async def chat(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Answers a conversation with texts or pictures, at once or in pieces."""
    body = await read_body(request, "application/json")
    order = await run_in_threadpool(read_chat, body, server)
    waiting = submit(order.works, server)
    id_, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if order.stream:
        pieces = _streamed(order, waiting, server, request, deadline, id_, created)
        return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    results = await results_of(waiting, request, deadline)
    return JSONResponse(await run_in_threadpool(chat_reply, id_, server.name, created, results))


async def _streamed(
    order: ChatOrder,
    waiting: Waiting,
    server: Server,
    request: HttpRequest,
    deadline: float,
    id_: str,
    created: int,
) -> AsyncIterator[bytes]:
    results: list[Answered | GeneratedImage] = []
    try:
        for number in range(len(waiting.jobs)):
            yield chat_chunk(id_, server.name, created, number, None)
        async with contextlib.aclosing(events_of(waiting, request, deadline)) as events:
            async for number, event in events:
                results += [] if isinstance(event, Piece) else [event]
                yield chat_chunk(id_, server.name, created, number, event)
        if order.usage:
            yield usage_chunk(id_, server.name, created, results)
        yield DONE
    except Refusal as refusal:
        yield server_event(refusal.body)
    except ClientGone:
        return
    finally:
        for job in waiting.jobs:  # the client may be gone before the first event
            job.cancelled.set()


async def list_models(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Lists the model."""
    return JSONResponse(models_reply(server.name, server.started))


async def describe_model(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Describes the model."""
    check_model(request.path_params["name"], server)
    return JSONResponse(model_reply(server.name, server.started))


async def health(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Says that the server takes requests. The model is loaded before the server starts."""
    if not request.app.state.worker.is_alive():
        raise Refusal(503, "the model has stopped; start the server again", "stopped")
    return JSONResponse({"status": "ok", "model": server.name, "waiting": len(server.queue)})


async def metrics(server: Server, request: HttpRequest, deadline: float) -> Response:
    """Returns the counts in Prometheus's text format."""
    return PlainTextResponse(server.counts.text(len(server.queue)), media_type="text/plain; version=0.0.4")


ENDPOINTS: tuple[tuple[str, str, Handler], ...] = (
    ("/v1/images/generations", "POST", generate_pictures),
    ("/v1/images/edits", "POST", edit_pictures),
    ("/v1/chat/completions", "POST", chat),
    ("/v1/models", "GET", list_models),
    ("/v1/models/{name:path}", "GET", describe_model),
    ("/health", "GET", health),
    ("/metrics", "GET", metrics),
)
"""Path, method and handler of every endpoint."""


def _endpoint(handler: Handler, server: Server, *, open_to_all: bool) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def reply(request: HttpRequest) -> Response:
        deadline = asyncio.get_running_loop().time() + server.limits.timeout
        try:
            if not open_to_all:
                _check_key(request, server.key)
            async with asyncio.timeout_at(deadline):  # of sending the request, and of reading it
                return await handler(server, request, deadline)
        except ClientGone:
            return Response(status_code=499)
        except TimeoutError:
            return _refused(too_late())
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            return _refused(refusal)

    return reply


def _check_key(request: HttpRequest, key: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if key and not hmac.compare_digest(given.encode(), key.encode()):
        message = "the API key is missing or wrong; send it as the header Authorization: Bearer KEY"
        raise Refusal(401, message, "invalid_api_key", {"WWW-Authenticate": "Bearer"})


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _other_error(request: HttpRequest, error: Exception) -> Response:
    """Replies to a request for which there is no endpoint."""
    known = ", ".join(f"{method} {path}" for path, method, _ in ENDPOINTS)
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _refused(Refusal(status, f"there is no {request.method} {request.url.path} here; use one of {known}"))


async def _program_error(request: HttpRequest, error: Exception) -> Response:
    """Replies to a request at which the program failed. The server logs the error."""
    return _refused(program_failed())


class _Counted:
    """Counts requests, their status and their time, to the end of the reply."""

    def __init__(self, app: ASGIApp, counts: Counts):
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            endpoint = next((path for path, _, _ in ENDPOINTS if _matches(path, scope["path"])), "other")
            self._counts.add("uno_requests_total", 1, endpoint, str(status))
            self._counts.add("uno_request_seconds_total", time.monotonic() - began, endpoint)


def _matches(endpoint: str, path: str) -> bool:
    fixed, brace, _ = endpoint.partition("{")
    return path.startswith(fixed) and path != fixed if brace else path == endpoint
