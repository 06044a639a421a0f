"""Runs the jobs of a queue with a model, batch by batch, in one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from uno_jax.inference.conversation import TOKENS_AT_ONCE
from uno_jax.inference.generate import Generator, Request
from uno_jax.sampling.text import TextConfig
from uno_jax.serving.jobs import Answered, Finish, Job, Piece, Question
from uno_jax.serving.metrics import Counts
from uno_jax.serving.queue import JobQueue
from uno_jax.serving.refusals import program_failed, refusal_of
from uno_jax.serving.visible import visible

_LOG = logging.getLogger(__name__)


def run_jobs(queue: JobQueue, generator: Generator, counts: Counts, *, most: int, wait: float) -> None:
    """Runs batches of at most `most` jobs until the queue is closed, and waits `wait` seconds for each to fill."""
    while jobs := queue.take(most, wait):
        counts.add("uno_running", len(jobs))
        began = time.monotonic()
        kind = "pictures" if isinstance(jobs[0].work, Request) else "answers"
        try:
            run_batch(generator, jobs, counts)
        finally:
            counts.add("uno_running", -len(jobs))
            counts.add("uno_batches_total", 1, kind)
            counts.add("uno_batch_jobs_total", len(jobs), kind)
            counts.add("uno_batch_seconds_total", time.monotonic() - began, kind)


def run_batch(generator: Generator, jobs: Sequence[Job], counts: Counts) -> None:
    """Runs jobs of one kind, and reports the result of each, or why it has none."""
    if isinstance(jobs[0].work, Request):
        _draw(generator, jobs)
    else:
        _answer(generator, jobs, counts)


def _draw(generator: Generator, jobs: Sequence[Job]) -> None:
    requests = [job.work for job in jobs if isinstance(job.work, Request)]
    try:
        pictures = dict(generator.generate(requests, len(requests)))
    except Exception as error:
        if len(jobs) == 1:
            jobs[0].report(_reported(error))
            return
        for job in jobs:  # one picture that has no finite values must not cost the others theirs
            _draw(generator, [job])
        return
    for number, job in enumerate(jobs):
        job.report(pictures[number])


def _answer(generator: Generator, jobs: Sequence[Job], counts: Counts) -> None:
    unfinished = dict(enumerate(jobs))
    questions = [job.work for job in jobs if isinstance(job.work, Question)]
    try:
        _write(generator, questions, unfinished, counts)
    except Exception as error:
        for job in unfinished.values():
            job.report(_reported(error))


def _write(generator: Generator, questions: Sequence[Question], unfinished: dict[int, Job], counts: Counts) -> None:
    """Writes the answers, and removes from `unfinished` the jobs whose answer is complete or that are cancelled."""
    reader, text = generator.reader, questions[0].text
    read = reader.read([question.plan for question in questions], [0] * len(questions))
    shown = [visible("", (), complete=True) for _ in questions]
    writing = reader.write(read, text, [question.seed for question in questions], at_once=TOKENS_AT_ONCE)
    for step, written in enumerate(writing, start=1):
        possible = _possible(step, text)
        for number, job in list(unfinished.items()):
            ids = written[number]
            ended, full = len(ids) < possible, len(ids) == text.max_length - 1
            now = visible(reader.model.tokenizer.decode(ids), questions[number].stop, complete=ended or full)
            before, shown[number] = shown[number], now
            piece = Piece(now.content[len(before.content) :], now.thought[len(before.thought) :])
            if any(piece):
                job.report(piece)
            if ended or full or now.stopped:
                finish: Finish = "stop" if ended or now.stopped else "length"
                job.report(Answered(now.content, now.thought, read.tokens[number], len(ids), finish))
                counts.add("uno_tokens_written_total", len(ids))
            if ended or full or now.stopped or job.cancelled.is_set():
                del unfinished[number]
        if not unfinished:
            return


def _possible(step: int, text: TextConfig) -> int:
    """Number of tokens that a text has after a step unless it has ended, without its start token."""
    return min(1 + step * TOKENS_AT_ONCE, text.max_length) - 1


def _reported(error: Exception) -> Exception:
    """Returns what a client is told of an error. An error of the program is logged, and not told."""
    refusal = refusal_of(error)
    if refusal is None:
        _LOG.error("a batch failed", exc_info=error)
        return program_failed()
    return refusal
