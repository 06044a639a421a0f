"""MME: two yes-or-no questions about each picture, in 14 tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError, Score, read_text
from uno_jax.evaluation.understanding.exam import (
    SHORT,
    Exam,
    Question,
    Questions,
    find_picture,
    percent,
    questions_of,
)
from uno_jax.process.files import atomic_file

_PERCEPTION = (
    *("existence", "count", "position", "color"),
    *("posters", "celebrity", "scene", "landmark", "artwork"),
    "OCR",
)
_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_RELEASE = "MME_Benchmark_release_version"
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")
# Longer words first: the second is a part of the first.
_SAME = (("\n", ""), ("不是", "No"), ("是", "Yes"), ("否", "No"))


def _read(path: Path) -> Questions:
    """Reads a file per task, with lines of picture, question and answer, separated by tabs."""
    folders = (path, path / "Your_Results", path / "eval_tool" / "Your_Results")
    folder = next((each for each in folders if (each / f"{_PERCEPTION[0]}.txt").is_file()), path)
    files = [file for task in (*_PERCEPTION, *_COGNITION) if (file := folder / f"{task}.txt").is_file()]
    items: list[Question] = []
    for file in files:
        # Below the folder of questions, or that of the whole release.
        tops = (path, path / _RELEASE, path.parent, path.parent / _RELEASE)
        places = [top / file.stem / inner for top in tops for inner in ("", "images")]
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            where = f"{file}:{number}"
            if not line.strip():
                continue
            parts = line.strip().split("\t")
            if len(parts) != 3 or parts[2] not in ("Yes", "No"):
                raise BenchmarkError(f"{where}: expected picture, question, and Yes or No, separated by tabs")
            shown = find_picture(parts[0], places, where)
            text = f"{parts[1]} {SHORT}"
            kept = {"picture": parts[0], "question": parts[1]}
            items.append(Question(f"{file.stem}/{number}", (shown,), text, parts[2], file.stem, where, kept))
    return questions_of(items, files, f"{_PERCEPTION[0]}.txt and 13 others")


def _plain(answer: str) -> str:
    """Returns an answer as BAGEL's script writes it."""
    for old, new in _SAME:
        answer = answer.replace(old, new)
    return _CHINESE.sub("", answer.lower().replace("true", "yes").replace("false", "no"))


def _said(answer: str) -> str:
    """Returns Yes or No if one is in the first four characters, as the official scorer does; else nothing."""
    start = _plain(answer)[:4]
    return "Yes" if "yes" in start else "No" if "no" in start else ""


def _mark(items: Sequence[Question], answers: Mapping[str, Any]) -> Score:
    """Adds, for each task, the percentage of right answers to that of pictures with two right answers."""
    points = {item.id: float(_said(answers[item.id]) == item.answer) for item in items}
    tasks = {}
    for task in dict.fromkeys(item.category for item in items):
        own = [points[item.id] for item in items if item.category == task]
        pairs = [min(own[at : at + 2]) for at in range(0, len(own), 2)]
        tasks[task] = percent(own) + percent(pairs)
    sums = {
        "perception": sum(tasks.get(task, 0.0) for task in _PERCEPTION),
        "cognition": sum(tasks.get(task, 0.0) for task in _COGNITION),
    }
    return Score({"perception + cognition": sum(sums.values()), **sums}, tasks, points, len(points))


def _write(folder: Path, items: Sequence[Question], answers: Mapping[str, Any]) -> None:
    """Writes the files as read, with the answer in a fourth column."""
    (folder / "results").mkdir(exist_ok=True)
    for task in dict.fromkeys(item.category for item in items):
        lines = [
            "\t".join([item.published["picture"], item.published["question"], item.answer, _plain(answers[item.id])])
            for item in items
            if item.category == task
        ]
        with atomic_file(folder / "results" / f"{task}.txt") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


MME = Exam(
    name="mme",
    about="MME, 14 tasks",
    data=f"folder of existence.txt and 13 others (Your_Results), in or beside {_RELEASE}",
    read=_read,
    mark=_mark,
    write=_write,
    max_length=20,
)
