"""The queue between the requests of a server and its model, which takes batches of compatible jobs from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from uno_jax.serving.jobs import Job
from uno_jax.serving.refusals import Refusal


class JobQueue:
    """Jobs that wait, oldest first. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Number of waiting jobs, without cancelled ones."""
        with self._changed:
            self._drop_cancelled()
            return len(self._jobs)

    def put(self, jobs: Sequence[Job], limit: int) -> None:
        """Appends jobs, all or none, so that at most `limit` wait.

        Raises:
          Refusal: with status 429, if more would wait; with status 503, if the queue is closed.
        """
        with self._changed:
            self._drop_cancelled()
            if self._closed:
                raise Refusal(503, "the server is stopping; ask again later", "stopping")
            if len(self._jobs) + len(jobs) > limit:
                message = (
                    f"{len(self._jobs)} of the {limit} places in the queue are taken, and the request needs "
                    f"{len(jobs)}; ask again later"
                )
                raise Refusal(429, message, "queue_full", {"Retry-After": "1"})
            self._jobs += jobs
            self._changed.notify_all()

    def take(self, most: int, wait: float) -> list[Job]:
        """Removes and returns the oldest job, and others of its kind, at most `most` in all.

        Args:
          most: maximum number of jobs.
          wait: seconds to wait for more jobs of the kind, if there are fewer than `most`.

        Returns:
          The jobs, of one kind. Blocks until there are some; none means that the queue is closed.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return []
                end = time.monotonic() + wait
                while len(self._next(most)) < most and (left := end - time.monotonic()) > 0 and not self._closed:
                    self._changed.wait(left)
                batch = self._next(most)
                if batch:
                    self._jobs = [job for job in self._jobs if job not in batch]
                    return batch

    def close(self) -> None:
        """Refuses further jobs, and lets `take` return none. Waiting jobs are reported as refused."""
        with self._changed:
            self._closed = True
            jobs, self._jobs = self._jobs, []
            self._changed.notify_all()
        for job in jobs:
            job.report(Refusal(503, "the server is stopping; ask again later", "stopping"))

    def _next(self, most: int) -> list[Job]:
        self._drop_cancelled()
        return [job for job in self._jobs if job.kind == self._jobs[0].kind][:most]

    def _drop_cancelled(self) -> None:
        self._jobs = [job for job in self._jobs if not job.cancelled.is_set()]
