"""Judges the pictures of a folder, several at once, and continues where an earlier call stopped."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from uno_jax.evaluation.benchmark import Ask, BenchmarkError, Item, Judging
from uno_jax.evaluation.judge.endpoint import Answer, Endpoint, JudgeError, NoAnswer, Shown
from uno_jax.evaluation.judge.pictures import check_picture
from uno_jax.evaluation.judge.texts import Texts, filled, without_thoughts
from uno_jax.evaluation.progress import Progress
from uno_jax.evaluation.record import Record
from uno_jax.process.coroutines import run_coroutine
from uno_jax.process.files import write_json

FOLDER = "judge"
"""Folder of answers and raw outputs, below the output folder."""
CACHE, FAILURES = "answers", "failures.json"
_ENOUGH = 5  # questions in a row without any answer, after which an endpoint is given up if it never answered
_NOTHING = "nothing to ask"


class Question(NamedTuple):
    """A question about a picture."""

    picture: Path
    item: Item
    template: str
    shown: Shown


class Judged(NamedTuple):
    """What came of it."""

    files: list[Path]
    """Raw outputs, as the official scorer writes them."""
    judge: str
    """Name and version of the judge."""
    about: dict[str, Any]
    """Everything about the judge that is on record."""


class _Outcome(NamedTuple):
    """Answers by the number of their question, and why there are no others."""

    given: dict[int, Answer]
    failures: dict[int, NoAnswer]


def judge_pictures(
    data: Path,
    out: Path,
    record: Record,
    items: Mapping[str, Item],
    judging: Judging,
    texts: Texts,
    endpoint: Endpoint,
    jobs: int,
    console: Console,
) -> Judged:
    """Asks a judge about all pictures that exist, and writes the raw outputs.

    A question whose answer is on disk is not asked. One that fails is in `failures.json`, and asked by the next call.

    Args:
      data: path of the published files.
      out: folder that `generate` has written.
      record: its record.
      items: the items by id, with their published fields.
      judging: how the benchmark is judged.
      texts: texts for the judge.
      endpoint: the judge.
      jobs: questions at a time.
      console: receives the time left.

    Raises:
      BenchmarkError: a text for the judge is missing, a picture cannot be read, or there are none.
      JudgeError: the judge cannot be used.
    """
    pictures = {out / made.file: items[made.item] for made in record.pictures if (out / made.file).is_file()}
    if not pictures:
        raise BenchmarkError(f"{out}: there are no pictures to judge; generate them first")
    questions = _questions(data, out, pictures, judging, texts)
    folder = out / FOLDER
    endpoint.cache.mkdir(parents=True, exist_ok=True)
    given: dict[int, Answer] = {}
    for number, question in enumerate(questions):
        kept = endpoint.kept(question.shown)
        if kept is not None and _readable(judging, question, kept.text):
            given[number] = kept
    left = [number for number in range(len(questions)) if number not in given]
    note = f"{len(questions):,} questions to {endpoint.model}, {len(left):,} to ask, {len(given):,} answered"
    console.print(note, markup=False, highlight=False)
    if left:
        progress = Progress(console, len(left), "question", compiles=False)
        outcome = run_coroutine(_asked(questions, left, judging, endpoint, jobs, progress, proven=bool(given)))
    else:
        outcome = _Outcome({}, {})
    given |= outcome.given
    failures = [_failure(out, questions[number], why) for number, why in outcome.failures.items()]
    asked = {question.picture for question in questions}
    failures += [_described(out, picture, "", _NOTHING) for picture in pictures if picture not in asked]
    write_json(folder / FAILURES, failures)
    answers: dict[Path, dict[str, str]] = defaultdict(dict)
    for number, answer in given.items():
        answers[questions[number].picture][questions[number].template] = without_thoughts(answer.text)
    files = judging.write(folder, out, pictures, answers)
    reasons = Counter(failure["reason"] for failure in failures)
    if reasons:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(reasons.items()))
        note = f"{counts}; {folder / FAILURES} names them, and the next call asks again"
        console.print(note, markup=False, highlight=False)
    own = [answer for _, answer in sorted(given.items())]
    about = {**_about(endpoint, texts, own), "questions": len(questions), "answered": len(own), "failed": dict(reasons)}
    return Judged(files, _name(endpoint.model, own, texts), about)


def _questions(data: Path, out: Path, pictures: Mapping[Path, Item], judging: Judging, texts: Texts) -> list[Question]:
    """Returns the questions about all pictures, which are looked at first: no endpoint can tell what is wrong with one.

    Raises:
      BenchmarkError: a text is missing, or a picture cannot be read.
    """
    looked_at: set[Path] = set()

    def look_at(files: Sequence[Path]) -> None:
        for file in files:
            if file not in looked_at:
                check_picture(file)
                looked_at.add(file)

    questions = []
    for picture, item in pictures.items():
        look_at([picture])
        for ask in judging.asks(data, out, item, picture):
            look_at(ask.pictures)
            questions.append(Question(picture, item, ask.template, _shown(ask, item, texts)))
    return questions


def _shown(ask: Ask, item: Item, texts: Texts) -> Shown:
    if ask.template not in texts.by_name:
        known = ", ".join(texts.by_name)
        raise BenchmarkError(f"--judge_prompts has no text {ask.template!r}; it has {known}")
    return Shown(filled(texts.by_name[ask.template], item), ask.pictures, ask.captions)


def _readable(judging: Judging, question: Question, text: str) -> bool:
    return judging.readable(question.item, question.template, without_thoughts(text))


async def _asked(
    questions: Sequence[Question],
    left: Sequence[int],
    judging: Judging,
    endpoint: Endpoint,
    jobs: int,
    progress: Progress,
    proven: bool,
) -> _Outcome:
    """Asks the questions of some numbers, few at a time.

    These are coroutines and not threads, so that a signal ends them at once, also while an endpoint is silent. `proven`
    says that the judge has answered an earlier call: then, questions that it refuses are no sign that it is unusable.

    Raises:
      JudgeError: the endpoint refuses to answer, or has stopped.
    """
    outcome = _Outcome({}, {})
    waiting, lost = iter(left), 0
    running: dict[asyncio.Task[Answer], int] = {}
    async with endpoint.client() as client:
        try:
            while True:
                for number in itertools.islice(waiting, jobs - len(running)):
                    running[_start(client, questions[number], judging, endpoint)] = number
                if not running:
                    break
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    number = running.pop(task)
                    try:
                        outcome.given[number] = task.result()
                        lost = 0
                    except NoAnswer as error:
                        outcome.failures[number] = error
                        lost = lost + 1 if error.lost else 0
                progress.add(len(done))
                if _useless(outcome, proven, _ENOUGH) or lost >= max(_ENOUGH, 2 * jobs):
                    break
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    if _useless(outcome, proven, 1) or lost >= max(_ENOUGH, 2 * jobs):
        raise _given_up(endpoint, outcome)
    return outcome


def _useless(outcome: _Outcome, proven: bool, enough: int) -> bool:
    """Returns whether an endpoint has failed so often and answered nothing."""
    failures = outcome.failures.values()
    return not outcome.given and len(failures) >= enough and (not proven or all(each.lost for each in failures))


def _start(client: Any, question: Question, judging: Judging, endpoint: Endpoint) -> asyncio.Task[Answer]:
    def readable(text: str) -> bool:
        return _readable(judging, question, text)

    return asyncio.create_task(endpoint.ask(client, question.shown, readable))


def _given_up(endpoint: Endpoint, outcome: _Outcome) -> JudgeError:
    failures = list(outcome.failures.values())
    last = failures[-1]
    if outcome.given:
        return JudgeError(
            f"{endpoint.url} has stopped answering ({last}{f': {last.detail}' if last.detail else ''}); "
            f"{len(outcome.given):,} new answers are kept, so call again when it runs"
        )
    reasons = ", ".join(sorted({str(failure) for failure in failures}))
    said = next((f": {failure.detail}" for failure in failures if failure.detail), "")
    return JudgeError(
        f"{endpoint.url} gave no usable answer to the first {len(failures)} questions ({reasons}){said}; check that it "
        "runs and sees pictures, and --judge_url, --judge_model and --judge_timeout"
    )


def _failure(out: Path, question: Question, why: NoAnswer) -> dict[str, str]:
    return _described(out, question.picture, question.template, str(why), why.detail)


def _described(out: Path, picture: Path, template: str, reason: str, detail: str = "") -> dict[str, str]:
    return {"picture": str(picture.relative_to(out)), "text": template, "reason": reason, "detail": detail}


def _name(model: str, given: Sequence[Answer], texts: Texts) -> str:
    """Returns the name of the judge, with the model and versions that the endpoint states, and whose texts it read."""
    stated = {answer.model for answer in given} - {model, ""}
    versions = {answer.fingerprint for answer in given} - {""}
    more = ", ".join([*sorted(stated), *sorted(versions), *(["own texts"] if texts.own else [])])
    return f"{model} ({more})" if more else model


def _about(endpoint: Endpoint, texts: Texts, given: Sequence[Answer]) -> dict[str, Any]:
    times = sorted(answer.time for answer in given)
    content = "".join(f"{name}\0{text}\0" for name, text in sorted(texts.by_name.items()))
    return {
        "url": endpoint.url,
        "model": endpoint.model,
        "models_stated": sorted({answer.model for answer in given}),
        "versions_stated": sorted({answer.fingerprint for answer in given} - {""}),
        "first_answer": times[0] if times else "",
        "last_answer": times[-1] if times else "",
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "prompts": texts.source,
        "prompts_sha256": hashlib.sha256(content.encode()).hexdigest(),
    }
