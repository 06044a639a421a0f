"""Hands work to the queue, and awaits what the thread of the model reports of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from fastapi import Request as HttpRequest

from uno_jax.data.plans import Text
from uno_jax.inference.generate import GeneratedImage, Request
from uno_jax.serving.jobs import Answered, Event, Job, Piece, Question
from uno_jax.serving.refusals import ClientGone, Refusal
from uno_jax.serving.server import Server


class Waiting(NamedTuple):
    """Jobs of one request, and the events that they report, with the number of their job."""

    jobs: list[Job]
    events: asyncio.Queue[tuple[int, Event]]


def submit(works: Sequence[Request | Question], server: Server) -> Waiting:
    """Puts the work of a request into the queue.

    Raises:
      Refusal: with status 429, if the queue is full.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

    def report(number: int, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(events.put_nowait, (number, event))

    jobs = [Job(work, _kind(work, server), functools.partial(report, number)) for number, work in enumerate(works)]
    server.queue.put(jobs, server.limits.queue)
    return Waiting(jobs, events)


async def events_of(
    waiting: Waiting, request: HttpRequest, deadline: float
) -> AsyncGenerator[tuple[int, Piece | Answered | GeneratedImage], None]:
    """Yields the events of all jobs, and cancels the jobs when it ends.

    Args:
      waiting: the jobs.
      request: the request that they are for, whose body has been read.
      deadline: time of the event loop when the request must be done.

    Raises:
      Refusal: the time is over, or a job has failed.
      ClientGone: the client has closed the connection.
    """
    watcher = asyncio.create_task(_watch(request, waiting.events))
    left = len(waiting.jobs)
    try:
        while left:
            async with asyncio.timeout_at(deadline):
                number, event = await waiting.events.get()
            if isinstance(event, Exception):
                raise event
            left -= not isinstance(event, Piece)
            yield number, event
    except TimeoutError:
        raise too_late() from None
    finally:
        watcher.cancel()
        for job in waiting.jobs:
            job.cancelled.set()


async def results_of(waiting: Waiting, request: HttpRequest, deadline: float) -> list[Answered | GeneratedImage]:
    """Returns the result of every job; arguments and errors are those of `events_of`."""
    found: dict[int, Answered | GeneratedImage] = {}
    async with contextlib.aclosing(events_of(waiting, request, deadline)) as events:
        async for number, event in events:
            if not isinstance(event, Piece):
                found[number] = event
    return [found[number] for number in range(len(waiting.jobs))]


def too_late() -> Refusal:
    """Returns the refusal of a request that takes too long."""
    return Refusal(504, "the request took longer than this server allows; ask for less, or ask later", "timeout")


async def _watch(request: HttpRequest, events: asyncio.Queue[tuple[int, Event]]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    events.put_nowait((0, ClientGone()))


def _kind(work: Request | Question, server: Server) -> object:
    if isinstance(work, Request):
        return server.generator.kind(work)
    return work.text, any(not isinstance(item, Text) for item in work.plan)
