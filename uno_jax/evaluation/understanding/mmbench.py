"""MMBench: questions with options, asked several times with the options in another order."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError, Score, find_file, read_text
from uno_jax.evaluation.spreadsheet import write_xlsx
from uno_jax.evaluation.understanding.exam import (
    LETTER,
    Exam,
    Question,
    Questions,
    mean_score,
    percent,
    questions_of,
)
from uno_jax.evaluation.understanding.short_answers import first_option

_FILE = "mmbench_dev_20230712.tsv"
_LETTERS = "ABCDE"
_TURNS = 1_000_000
"""The question of a row with its options in another order is this number, or a multiple of it, less."""
_LEFT_OUT = {"hint", "category", "source", "image", "comment", "l2-category"}
_PREDICTION_AT = 6  # column that the official server expects


def _read(path: Path) -> Questions:
    """Reads a table of tab-separated values with pictures in base64. A picture may name the row that holds it."""
    file = find_file(path, (_FILE, "mmbench_dev_en_20231003.tsv"))
    csv.field_size_limit(2**31 - 1)
    rows = list(csv.DictReader(io.StringIO(read_text(file), newline=""), delimiter="\t"))
    encoded = {row.get("index"): row.get("image") or "" for row in rows}
    items = []
    for number, row in enumerate(rows, start=2):
        where = f"{file}, row {number}"
        index, question = row.get("index") or "", row.get("question")
        if not index.isdecimal() or question is None:
            raise BenchmarkError(f"{where}: expected columns index and question; download it again")
        options = {letter: text for letter in _LETTERS if (text := row.get(letter))}
        answer = row.get("answer") or ""
        if not options or (answer and answer not in options):
            raise BenchmarkError(f"{where}: the answer is {answer!r}, of the options {', '.join(options) or 'none'}")
        image = encoded[index]
        shown = _picture(encoded.get(image, "") if image.isdecimal() else image, where)
        lines = [*([row["hint"]] if row.get("hint") else []), question]
        lines += [*(f"{letter}. {text}" for letter, text in options.items()), LETTER]
        kept = {"options": options, "row": {name: value for name, value in row.items() if name not in _LEFT_OUT}}
        items.append(Question(index, (shown,), "\n".join(lines), answer, row.get("category") or "", where, kept))
    return questions_of(items, [file], _FILE)


def _picture(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BenchmarkError(f"{where}: the picture is not in base64 ({error}); download it again") from error


def _mark(items: Sequence[Question], answers: Mapping[str, Any]) -> Score:
    """Counts a question as right if it is in all orders of its options. Without answers, nothing is scored."""
    if not all(item.answer for item in items):
        return Score({}, {}, {}, 0)
    right = {item.id: float(first_option(answers[item.id], item.published["options"]) == item.answer) for item in items}
    turns: dict[int, list[float]] = defaultdict(list)
    for item in items:
        turns[int(item.id) % _TURNS].append(right[item.id])
    rows = {"rows right": percent(list(right.values()))}
    questions = {str(number): min(values) for number, values in turns.items()}
    asked = [item for item in items if item.id in questions]
    missing = [name for name in questions if name not in {item.id for item in asked}]
    if missing:
        raise BenchmarkError(f"{items[0].where}: there is no row {missing[0]}, but one with its options turned")
    return mean_score(asked, questions, "questions right in all orders", rows)


def _write(folder: Path, items: Sequence[Question], answers: Mapping[str, Any]) -> None:
    """Writes the table that the official server scores."""
    names = list(items[0].published["row"])
    head = [*names[:_PREDICTION_AT], "prediction", *names[_PREDICTION_AT:]]
    lines = []
    for item in items:
        said = first_option(answers[item.id], item.published["options"])
        row = {**item.published["row"], "prediction": said}
        lines.append([int(item.id) if name == "index" else row[name] or "" for name in head])
    write_xlsx(folder / "results.xlsx", [head, *lines])


MMBENCH = Exam(
    name="mmbench",
    about="MMBench, questions in English",
    data=f"{_FILE} or another of its .tsv files, or the folder of it",
    read=_read,
    mark=_mark,
    write=_write,
    max_length=100,
)
