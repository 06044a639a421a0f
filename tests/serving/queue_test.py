"""The queue between requests and the model."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from uno_jax.inference.generate import Request
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.serving.jobs import Job
from uno_jax.serving.queue import JobQueue
from uno_jax.serving.refusals import Refusal


def job(kind: str = "a", reports: list[Any] | None = None) -> Job:
    return Job(Request(("thing",), PictureSettings()), kind, [].append if reports is None else reports.append)


def filled(*jobs: Job) -> JobQueue:
    queue = JobQueue()
    queue.put(jobs, limit=100)
    return queue


def test_a_batch_is_the_oldest_job_and_others_of_its_kind():
    jobs = [job("a"), job("b"), job("a"), job("a"), job("b")]
    queue = filled(*jobs)
    assert queue.take(2, 0.0) == [jobs[0], jobs[2]]
    assert queue.take(2, 0.0) == [jobs[1], jobs[4]]
    assert queue.take(2, 0.0) == [jobs[3]]


def test_jobs_beyond_the_limit_are_refused_together():
    queue = filled(job(), job())
    with pytest.raises(Refusal, match="2 of the 3 places in the queue are taken, and the request needs 2"):
        queue.put([job(), job()], limit=3)
    assert len(queue) == 2
    queue.put([job()], limit=3)


def test_a_cancelled_job_neither_runs_nor_waits():
    jobs = [job(), job()]
    queue = filled(*jobs)
    jobs[0].cancelled.set()
    assert len(queue) == 1
    queue.put([job()], limit=2)
    assert queue.take(1, 0.0) == [jobs[1]]


def test_a_batch_waits_to_be_filled():
    queue, taken = filled(job()), []
    thread = threading.Thread(target=lambda: taken.extend(queue.take(2, 60.0)))
    thread.start()
    queue.put([job()], limit=2)
    thread.join(60)
    assert len(taken) == 2


def test_a_closed_queue_refuses_what_waits_and_what_comes():
    reports: list[Any] = []
    queue = filled(job(reports=reports))
    queue.close()
    assert [(refusal.status, refusal.code) for refusal in reports] == [(503, "stopping")]
    assert queue.take(1, 0.0) == []
    with pytest.raises(Refusal, match="the server is stopping"):
        queue.put([job()], limit=1)
