"""Questions with short answers in the format of VQA, which ten people answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError, Score, field_of, find_file, read_json_lines
from uno_jax.evaluation.understanding.exam import (
    SHORT,
    Exam,
    Question,
    Questions,
    find_picture,
    mean_score,
    questions_of,
)
from uno_jax.evaluation.understanding.short_answers import soft_accuracy
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import read_json_object

_ALL = "questions"


def _read(path: Path, names: tuple[str, ...], annotations: tuple[str, ...]) -> Questions:
    """Reads lines of picture, question and question_id; and a file of annotations, or else an answer in each line."""
    file = find_file(path, names)
    place = next((file.parent / name for name in annotations if (file.parent / name).is_file()), None)
    people: dict[str, tuple[list[str], str]] = {} if place is None else _annotations(place)
    items = []
    for where, line in read_json_lines(file):
        number, question = field_of(line, "question_id", (int, str), where), field_of(line, "question", str, where)
        given = people.get(str(number), ([], ""))[0] if place else _answers(line.get("answer"), where)
        if not given:
            raise BenchmarkError(f"{where}: there is no answer to question {number} in {place or file}")
        kind = people[str(number)][1] if place else _ALL
        shown = find_picture(field_of(line, "image", str, where), (file.parent,), where)
        kept = {"answers": given, "question": question, "question_id": number}
        items.append(Question(str(number), (shown,), f"{question} {SHORT}", "", kind, where, kept))
    return questions_of(items, [file, *([place] if place else [])], names[0])


def _annotations(file: Path) -> dict[str, tuple[list[str], str]]:
    """Returns the answers and the kind of answer of each question."""
    found = {}
    for number, record in enumerate(field_of(read_json_object(file), "annotations", list, str(file))):
        where = f"{file}: annotations[{number}]"
        answers = field_of(record, "answers", list, where)
        found[str(field_of(record, "question_id", (int, str), where))] = (
            [field_of(each, "answer", str, where) for each in answers],
            str(record.get("answer_type") or _ALL),
        )
    return found


def _answers(value: Any, where: str) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in listed):
        raise BenchmarkError(f"{where}: answer is {value!r}: expected a text, or a file of annotations beside it")
    return listed


def _mark(items: Sequence[Question], answers: Mapping[str, Any]) -> Score:
    points = {item.id: soft_accuracy(answers[item.id], item.published["answers"]) for item in items}
    return mean_score(items, points, "VQA accuracy")


def _write(folder: Path, items: Sequence[Question], answers: Mapping[str, Any]) -> None:
    write_json(
        folder / "results.json",
        [
            {
                "question": item.published["question"],
                "question_id": item.published["question_id"],
                "answer": answers[item.id],
            }
            for item in items
        ],
    )


def _exam(name: str, about: str, names: tuple[str, ...], annotations: tuple[str, ...]) -> Exam:
    return Exam(
        name=name,
        about=about,
        data=f"{names[0]} or its folder, with {annotations[0]} and the pictures below it",
        read=partial(_read, names=names, annotations=annotations),
        mark=_mark,
        write=_write,
        max_length=10,
    )


VQAV2 = _exam("vqav2", "VQAv2, validation", ("vqav2_val.jsonl",), ("v2_mscoco_val2014_annotations.json",))
TEXTVQA = _exam("textvqa", "TextVQA, validation", ("textvqa_val.jsonl",), ("textvqa_val_annotations.json",))
