"""POPE: whether an object is in a photograph, of objects that are chosen in three ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError, Score, field_of, find_file, read_json_lines
from uno_jax.evaluation.understanding.exam import (
    SHORT,
    Exam,
    Question,
    Questions,
    find_picture,
    percent,
    questions_of,
)
from uno_jax.process.files import write_json

_QUESTIONS = "llava_pope_test.jsonl"
_SUBSETS = ("random", "popular", "adversarial")


def _read(path: Path) -> Questions:
    """Reads `llava_pope_test.jsonl`, and the labels of `coco/coco_pope_<subset>.json`, by subset, picture and question.

    Each subset is published in the order of its labels, which the official scorer relies on. Here they must agree.
    """
    file = find_file(path, (_QUESTIONS,))
    folder = file.parent
    labels, files = {}, [file]
    for subset in _SUBSETS:
        place = find_file(folder, (f"coco/coco_pope_{subset}.json", f"coco_pope_{subset}.json"))
        files.append(place)
        for where, line in read_json_lines(place):
            label = field_of(line, "label", str, where)
            if label not in ("yes", "no"):
                raise BenchmarkError(f"{where}: label is {label!r}: expected yes or no")
            asked = field_of(line, "text", str, where)
            labels[subset, field_of(line, "image", str, where), asked.strip()] = label
    items = []
    for where, line in read_json_lines(file):
        subset, picture = field_of(line, "category", str, where), field_of(line, "image", str, where)
        text = field_of(line, "text", str, where)
        question = text.replace(SHORT, "").strip()
        answer = labels.get((subset, picture, question))
        if answer is None:
            raise BenchmarkError(f"{where}: no label of subset {subset!r} is for {picture} and {question!r}")
        shown = find_picture(picture, (folder / "val2014", folder), where)
        number = field_of(line, "question_id", (int, str), where)
        asked = f"{question}\n{SHORT}" if SHORT in text else f"{question} {SHORT}"
        items.append(Question(str(number), (shown,), asked, answer, subset, where, {"question_id": number}))
    return questions_of(items, files, _QUESTIONS)


def says_no(answer: str) -> bool:
    """Whether the official scorer takes an answer as no: its first sentence has the word no or not. Else it is yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return any(word in words for word in ("No", "no", "not"))


def _mark(items: Sequence[Question], answers: Mapping[str, Any]) -> Score:
    """Computes the F1 score of "yes" in each subset, and their mean."""
    said = {item.id: "no" if says_no(answers[item.id]) else "yes" for item in items}
    points = {item.id: float(said[item.id] == item.answer) for item in items}
    subsets = {}
    for subset in dict.fromkeys(item.category for item in items):
        group = [item for item in items if item.category == subset]
        right = sum(said[item.id] == item.answer == "yes" for item in group)
        claimed = sum(said[item.id] == "yes" for item in group)
        present = sum(item.answer == "yes" for item in group)
        subsets[subset] = 200.0 * right / (claimed + present) if claimed + present else 0.0
    averages = {
        "F1, mean of subsets": sum(subsets.values()) / len(subsets),
        "accuracy": percent(list(points.values())),
        "share of yes": percent([float(answer == "yes") for answer in said.values()]),
    }
    return Score(averages, subsets, points, len(points))


def _write(folder: Path, items: Sequence[Question], answers: Mapping[str, Any]) -> None:
    write_json(
        folder / "results.json",
        [
            {
                "question_id": item.published["question_id"],
                "text": answers[item.id],
                "text_orig": answers[item.id],
                "metadata": {},
            }
            for item in items
        ],
    )


POPE = Exam(
    name="pope",
    about="POPE, three subsets of COCO's val2014",
    data=f"{_QUESTIONS} or its folder, with coco/coco_pope_*.json and the pictures in val2014/",
    read=_read,
    mark=_mark,
    write=_write,
    max_length=100,
)
