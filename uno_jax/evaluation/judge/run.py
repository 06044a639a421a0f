"""Judges the pictures of a folder, several at once, and continues where an earlier call stopped."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from uno_jax.evaluation.benchmark import Ask, BenchmarkError, Item, Judging
from uno_jax.evaluation.judge.endpoint import Answer, Endpoint, JudgeError, NoAnswer
from uno_jax.evaluation.judge.texts import filled
from uno_jax.evaluation.progress import Progress
from uno_jax.evaluation.record import Record
from uno_jax.process.files import write_json

FOLDER = "judge"
"""Folder of answers and raw outputs, below the output folder."""
CACHE, FAILURES = "answers", "failures.json"
_ENOUGH = 5  # questions in a row without any answer, after which an endpoint is given up if it never answered


class Question(NamedTuple):
    """A question about the picture of an item."""

    item: str
    ask: Ask
    text: str


class Judged(NamedTuple):
    """What came of it."""

    files: list[Path]
    """Raw outputs, as the official scorer writes them."""
    judge: str
    """Name and version of the judge."""
    about: dict[str, Any]
    """Everything about the judge that is on record."""


def judge_pictures(
    out: Path,
    record: Record,
    items: Mapping[str, Item],
    judging: Judging,
    templates: Mapping[str, str],
    endpoint: Endpoint,
    jobs: int,
    console: Console,
) -> Judged:
    """Asks a judge about all pictures that exist, and writes the raw outputs.

    A question whose answer is on disk is not asked. One that fails is in `failures.json`, and asked by the next call.

    Args:
      out: folder that `generate` has written.
      record: its record.
      items: the items by id, with their published fields.
      judging: how the benchmark is judged.
      templates: texts for the judge by name.
      endpoint: the judge.
      jobs: questions at a time.
      console: receives the time left.

    Raises:
      BenchmarkError: a text for the judge is missing, or there are no pictures.
      JudgeError: the judge cannot be used.
    """
    pictures = {out / made.file: items[made.item] for made in record.pictures if (out / made.file).is_file()}
    if not pictures:
        raise BenchmarkError(f"{out}: there are no pictures to judge; generate them first")
    questions = []
    for picture, item in pictures.items():
        for ask in judging.asks(out, item, picture):
            if ask.template not in templates:
                known = ", ".join(templates)
                raise BenchmarkError(f"--judge_prompts has no text {ask.template!r}; it has {known}")
            questions.append(Question(item.id, ask, filled(templates[ask.template], item)))
    folder = out / FOLDER
    endpoint.cache.mkdir(parents=True, exist_ok=True)
    given: dict[Question, Answer] = {}
    for question in questions:
        kept = endpoint.kept(question.text, question.ask.pictures)
        if kept is not None and judging.readable(question.ask.template, kept.text):
            given[question] = kept
    left = [question for question in questions if question not in given]
    note = f"{len(questions):,} questions to {endpoint.model}, {len(left):,} to ask, {len(given):,} answered"
    console.print(note, markup=False, highlight=False)
    answered, failures = _asked(left, judging, endpoint, jobs, console)
    given |= answered
    write_json(folder / FAILURES, [[each.item, each.ask.template, reason] for each, reason in failures.items()])
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for question, answer in given.items():
        answers[question.item][question.ask.template] = answer.text
    files = judging.write(folder, out, pictures, answers)
    return Judged(files, _name(endpoint.model, given), _about(endpoint, templates, questions, given, failures))


def _asked(
    questions: Sequence[Question], judging: Judging, endpoint: Endpoint, jobs: int, console: Console
) -> tuple[dict[Question, Answer], dict[Question, str]]:
    """Returns the answers, and the reasons of those that failed."""
    given: dict[Question, Answer] = {}
    failures: dict[Question, str] = {}
    if not questions:
        return given, failures
    client, progress = endpoint.client(), Progress(console, len(questions), "question")

    def ask(question: Question) -> Answer:
        def readable(text: str) -> bool:
            return judging.readable(question.ask.template, text)

        return endpoint.ask(client, question.text, question.ask.pictures, readable)

    waiting = iter(questions)
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[Answer], Question] = {}
        try:
            while True:
                # Few at a time are handed over, so that an endpoint that is given up is not asked any more.
                for question in itertools.islice(waiting, jobs - len(running)):
                    running[pool.submit(ask, question)] = question
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    question = running.pop(future)
                    try:
                        given[question] = future.result()
                    except NoAnswer as error:
                        failures[question] = str(error)
                progress.add(len(done))
                if not given and len(failures) >= _ENOUGH:
                    break
        finally:
            client.close()  # ends the requests of the other threads, if this one ends early
    if given:
        return given, failures
    reasons = ", ".join(sorted(set(failures.values())))
    raise JudgeError(
        f"{endpoint.url} gave no usable answer to the first {len(failures)} questions ({reasons}); check that it runs "
        "and sees pictures, and --judge_url, --judge_model and --judge_timeout"
    )


def _name(model: str, given: Mapping[Question, Answer]) -> str:
    """Returns the name of the judge, with the model and versions that the endpoint states."""
    stated = {answer.model for answer in given.values()} - {model, ""}
    versions = {answer.fingerprint for answer in given.values()} - {""}
    more = ", ".join([*sorted(stated), *sorted(versions)])
    return f"{model} ({more})" if more else model


def _about(
    endpoint: Endpoint,
    templates: Mapping[str, str],
    questions: Sequence[Question],
    given: Mapping[Question, Answer],
    failures: Mapping[Question, str],
) -> dict[str, Any]:
    times = sorted(answer.time for answer in given.values())
    texts = "".join(f"{name}\0{text}\0" for name, text in sorted(templates.items()))
    return {
        "url": endpoint.url,
        "model": endpoint.model,
        "models_stated": sorted({answer.model for answer in given.values()}),
        "versions_stated": sorted({answer.fingerprint for answer in given.values()} - {""}),
        "first_answer": times[0] if times else "",
        "last_answer": times[-1] if times else "",
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "prompts_sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "questions": len(questions),
        "answered": len(given),
        "failed": dict(Counter(failures.values())),
    }
