"""MMMU: college exams, answered directly or after a chain of thought."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from uno_jax.evaluation.benchmark import BenchmarkError, Score, field_of
from uno_jax.evaluation.understanding.exam import LETTER, SHORT, Exam, Question, Questions, mean_score, questions_of
from uno_jax.evaluation.understanding.long_answers import chosen_option, final_answer, is_right
from uno_jax.evaluation.understanding.short_answers import first_option
from uno_jax.process.files import write_json

_PICTURES = [f"image_{number}" for number in range(1, 8)]
_COLUMNS = ["id", "question", "options", "answer", "question_type", *_PICTURES]
_LETTERS = "ABCDEFGHIJKLM"

Says = Callable[[Question, str], str]
"""Returns what an answer to a question says: a letter, or a short answer."""

_THINK = (
    "Reason step by step before you answer. When you are ready, write the answer on a line of its own, in the form "
    '"Final answer: ..".'
)


def _read(path: Path, think: bool) -> Questions:
    """Reads the Parquet files of the split `validation`, one for each subject."""
    found = sorted(path.rglob("validation-*.parquet")) or sorted(path.rglob("*.parquet"))
    files = [path] if path.is_file() else found
    items: list[Question] = []
    for file in files:
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                missing = set(_COLUMNS) - set(table.schema_arrow.names)
                if missing:
                    raise BenchmarkError(f"{file}: there is no column {', '.join(sorted(missing))}; download it again")
                rows = [row for batch in table.iter_batches(16, columns=_COLUMNS) for row in batch.to_pylist()]
        except (OSError, pyarrow.ArrowException) as error:
            raise BenchmarkError(f"{file}: cannot be read as Parquet ({error}); download it again") from error
        items += [_question(row, f"{file}[{number}]", think) for number, row in enumerate(rows)]
    return questions_of(items, files, f"the .parquet files of MMMU/MMMU below {path}")


def _question(row: Mapping[str, Any], where: str, think: bool) -> Question:
    name, text = field_of(row, "id", str, where), field_of(row, "question", str, where)
    listed = _listed(field_of(row, "options", str, where), where)
    if len(listed) > len(_LETTERS):
        raise BenchmarkError(f"{where}: {len(listed)} options, expected at most {len(_LETTERS)}")
    options = {_LETTERS[number]: option.strip() for number, option in enumerate(listed)}
    lines = [text.strip(), *(f"{letter}. {option}" for letter, option in options.items())]
    lines += [LETTER if options else SHORT, *([_THINK] if think else [])]
    shown = tuple(bytes(cell["bytes"]) for column in _PICTURES if (cell := row[column]) and cell.get("bytes"))
    answer = field_of(row, "answer", str, where)
    right = _listed(answer, where) if re.fullmatch(r"\[\s*['\"].*\]", answer) else [answer]
    subject = "_".join(name.split("_")[1:-1]) or name
    return Question(name, shown, "\n".join(lines), answer, subject, where, {"options": options, "right": right})


def _listed(text: str, where: str) -> list[str]:
    """Reads a list that is written as Python does."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise BenchmarkError(f"{where}: {text[:60]!r} is no list of texts; download it again") from error
    if not isinstance(value, list):
        raise BenchmarkError(f"{where}: {text[:60]!r} is no list of texts; download it again")
    return [str(each) for each in value]


def _short(item: Question, answer: str) -> str:
    options = item.published["options"]
    return first_option(answer, options) if options else answer


def _long(item: Question, answer: str) -> str:
    options, said = item.published["options"], final_answer(answer)
    return chosen_option(said, options) if options else said


def _mark(items: Sequence[Question], answers: Mapping[str, Any], says: Says) -> Score:
    """Counts letters that are right, and short answers that state a right one."""
    points, guesses = {}, []
    for item in items:
        options, said = item.published["options"], says(item, answers[item.id])
        right = said == item.answer if options else is_right(said, item.published["right"])
        points[item.id] = float(right)
        guesses.append(1 / len(options) if options and said not in options else float(right))
    others = {"with a guess for answers without a letter": 100.0 * sum(guesses) / len(guesses)}
    return mean_score(items, points, "answers right", others)


def _write(folder: Path, items: Sequence[Question], answers: Mapping[str, Any], says: Says) -> None:
    write_json(folder / "prediction.json", {item.id: says(item, answers[item.id]) for item in items})


_DATA = "folder of the .parquet files of MMMU/MMMU, or one of them"
MMMU = Exam(
    name="mmmu",
    about="MMMU, validation, answered directly",
    data=_DATA,
    read=partial(_read, think=False),
    mark=partial(_mark, says=_short),
    write=partial(_write, says=_short),
    max_length=10,
    doubled=True,
)
MMMU_COT = Exam(
    name="mmmu_cot",
    about="MMMU, validation, answered after a chain of thought of up to 16,384 tokens",
    data=_DATA,
    read=partial(_read, think=True),
    mark=partial(_mark, says=_long),
    write=partial(_write, says=_long),
    max_length=16384,
    doubled=True,
)
