"""Held-out records of a prepared dataset: answers to its questions, and how well its captions are expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uno_jax.batch import TASKS
from uno_jax.data.records import open_records, record_tasks
from uno_jax.evaluation.benchmark import BenchmarkError, Score
from uno_jax.evaluation.understanding.exam import Exam, Question, Questions, mean_score, questions_of
from uno_jax.evaluation.understanding.short_answers import comparable

_SPLIT = "test"


def _read(path: Path, task: str) -> Questions:
    """Reads all records of a task in the split `test`. A record of text to image asks for its prompt, as a caption."""
    numbers = np.flatnonzero(record_tasks(path, _SPLIT) == TASKS.index(task))
    if not len(numbers):
        raise BenchmarkError(f"{path}: split {_SPLIT!r} has no record of {task}; give another dataset")
    records, items = open_records(path, _SPLIT), []
    for number in numbers:
        record, where = records[int(number)], f"{path}: record {int(number)}"
        text, answer = (record.prompt, record.answer) if task == "understanding" else ("", record.prompt)
        items.append(Question(f"{int(number)} {record.id}", (record.image,), text, answer, task, where))
    return questions_of(items, [path / f"tasks-{_SPLIT}.npy"], "a dataset of prepare_data")


def _read_answers(path: Path) -> Questions:
    return _read(path, "understanding")


def _read_captions(path: Path) -> Questions:
    return _read(path, "text_to_image")


def _mark_answers(items: Sequence[Question], answers: Mapping[str, Any]) -> Score:
    exact = {item.id: float(answers[item.id].strip() == item.answer.strip()) for item in items}
    alike = [comparable(answers[item.id]) == comparable(item.answer) for item in items]
    return mean_score(items, exact, "exact answers", {"after VQA's normalisation": 100.0 * sum(alike) / len(alike)})


def _mark_expected(items: Sequence[Question], results: Mapping[str, Any]) -> Score:
    """Averages cross-entropies over all tokens, as training does, and over texts. Lower is better."""
    each = {item.id: results[item.id].nats / results[item.id].tokens for item in items}
    total = sum(results[item.id].nats for item in items) / sum(results[item.id].tokens for item in items)
    averages = {"nats a token": total, "mean of texts": sum(each.values()) / len(each)}
    return Score(averages, {}, each, len(each))


HELD_OUT_ANSWERS = Exam(
    name="held_out_answers",
    about="questions of a prepared dataset, split `test`",
    data="folder of a dataset of prepare_data with records of understanding",
    read=_read_answers,
    mark=_mark_answers,
    max_length=100,
)
HELD_OUT_EXPECTED = Exam(
    name="held_out_expected",
    about="cross-entropy of the right answers to these questions",
    data="the same",
    read=_read_answers,
    mark=_mark_expected,
    expected=True,
)
HELD_OUT_CAPTIONS = Exam(
    name="held_out_captions",
    about="cross-entropy of the captions of a prepared dataset, split `test`",
    data="folder of a dataset of prepare_data with records of text_to_image",
    read=_read_captions,
    mark=_mark_expected,
    expected=True,
)
